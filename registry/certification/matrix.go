package certification

import (
	"fmt"
	"slices"
	"strings"
)

// Role is what an entity is in the scheme.
type Role string

// The roles of the framework. An entity may hold several at once.
const (
	Developer       Role = "D"
	ServiceProvider Role = "SP"
	CloudProvider   Role = "CP"
	InHouse         Role = "IHD"
)

// Roles is every role, in the order of the matrix's columns.
func Roles() []Role { return []Role{Developer, ServiceProvider, CloudProvider, InHouse} }

// Cell is what the role matrix says of one role in one scenario.
type Cell string

// The cells of the matrix (domain model §2). The framework's document marks
// them with icons, a merged cell and two asterisks.
const (
	// NotApplicable: the role does not occur in the scenario.
	NotApplicable Cell = "n/a"
	// Certifies: registers and self-certifies, and so meets guidelines and
	// minimum requirements.
	Certifies Cell = "register+certify"
	// Covered: the role is held by the entity of another cell of the row, whose
	// registration and self-certification covers it.
	Covered Cell = "covered"
	// Meets: `**`, no duty to self-certify, but must meet guidelines and minimum
	// requirements. Whether it registers is an open question.
	Meets Cell = "meets"
)

// Row is one deployment scenario of the matrix.
type Row struct {
	Scenario uint8         `yaml:"scenario" json:"scenario"`
	Title    string        `yaml:"title" json:"title"`
	Delivery string        `yaml:"delivery" json:"delivery"` // as the framework writes it, e.g. D/SP→CP→User
	Cells    map[Role]Cell `yaml:"cells" json:"cells"`
}

// Matrix is the role matrix: six scenarios, four roles.
type Matrix struct {
	Version string `yaml:"version" json:"version"`
	Rows    []Row  `yaml:"rows" json:"rows"`
}

// Row finds a scenario; nil when there is none.
func (m *Matrix) Row(scenario uint8) *Row {
	for i := range m.Rows {
		if m.Rows[i].Scenario == scenario {
			return &m.Rows[i]
		}
	}
	return nil
}

func (m *Matrix) check() error {
	if len(m.Rows) != 6 {
		return fmt.Errorf("%w: the matrix has %d rows; the framework has 6", ErrData, len(m.Rows))
	}
	for i, r := range m.Rows {
		if int(r.Scenario) != i+1 {
			return fmt.Errorf("%w: row %d is scenario %d", ErrData, i+1, r.Scenario)
		}
		for _, role := range Roles() {
			if !slices.Contains([]Cell{NotApplicable, Certifies, Covered, Meets}, r.Cells[role]) {
				return fmt.Errorf("%w: scenario %d, role %s: %q is no cell", ErrData, r.Scenario, role, r.Cells[role])
			}
		}
		if len(r.Cells) != len(Roles()) {
			return fmt.Errorf("%w: scenario %d names a role that there is not", ErrData, r.Scenario)
		}
	}
	return nil
}

// Party is one entity in the delivery of a product.
type Party struct {
	ID    string `json:"id"` // its ABN
	Roles []Role `json:"roles"`
}

// Delivery is a product with the parties that deliver it to its users.
type Delivery struct {
	// Scenario is the one declared, 1 to 6; 0 leaves it to the roles.
	Scenario uint8   `json:"scenario,omitempty"`
	Parties  []Party `json:"parties"`
}

// Obligation is what one party owes for one product.
type Obligation struct {
	Party string `json:"party"`
	Roles []Role `json:"roles"`
	// Register: the entity must be in the register of developers and providers.
	Register bool `json:"register"`
	// SelfCertify: it declares, requirement by requirement, and signs.
	SelfCertify bool `json:"self_certify"`
	// Meet: guidelines and minimum requirements bind it, declared or not.
	Meet bool `json:"meet_requirements"`
	// Through is the party that shows, for this one, that they are met; "" itself.
	Through string `json:"evidenced_through,omitempty"`
	// Scenarios are the rows of the matrix that say so.
	Scenarios []int `json:"scenarios"` // not bytes, which JSON would write as base64
	// Reasons say, in sentences, why.
	Reasons []string `json:"reasons"`
}

// partiesMax bounds a delivery: its owner and the register's longest chain.
const partiesMax = 17

// Obligations computes what each party of a delivery owes. A chain that is no
// row of the matrix is held to all the rows that it contains (domain model §2,
// ambiguity c). The parties come back in the order given.
func (m *Matrix) Obligations(d Delivery, open Open) ([]Obligation, error) {
	if err := d.check(); err != nil {
		return nil, err
	}
	rows, err := d.scenarios()
	if err != nil {
		return nil, err
	}
	certifier := d.certifier()
	var out []Obligation
	for i := range d.Parties {
		p := &d.Parties[i]
		o := Obligation{Party: p.ID, Roles: p.Roles}
		for _, scenario := range rows {
			row := m.Row(scenario)
			for _, role := range p.Roles {
				// One's own cloud is row 5's and a third party's is row 6's: a chain may
				// have both.
				if role == CloudProvider && scenario >= 5 && d.offers(p) != (scenario == 5) {
					continue
				}
				if m.apply(&o, row, role, open) && !slices.Contains(o.Scenarios, int(scenario)) {
					o.Scenarios = append(o.Scenarios, int(scenario))
				}
			}
		}
		if o.Meet && !o.SelfCertify && certifier != p.ID {
			o.Through = certifier
			o.Reasons = append(o.Reasons, fmt.Sprintf("What it meets is shown through %s, which self-certifies the product.", certifier))
		}
		out = append(out, o)
	}
	return out, nil
}

// apply adds what one cell asks; ok is false for a cell that asks nothing.
func (m *Matrix) apply(o *Obligation, row *Row, role Role, open Open) (ok bool) {
	cell := row.Cells[role]
	say := func(format string, args ...any) {
		o.Reasons = append(o.Reasons, fmt.Sprintf("Scenario %d (%s): ", row.Scenario, row.Title)+fmt.Sprintf(format, args...))
	}
	switch cell {
	case Certifies:
		o.Register, o.SelfCertify, o.Meet = true, true, true
		say("as %s it registers, self-certifies and meets guidelines and minimum requirements.", role)
	case Covered:
		// The merged cell stands for one entity: whoever holds the role alone would
		// otherwise owe nothing at all.
		o.Register, o.SelfCertify, o.Meet = true, true, true
		others := slices.DeleteFunc(slices.Clone(o.Roles), func(r Role) bool {
			return r == role || row.Cells[r] != Certifies && row.Cells[r] != Covered
		})
		if len(others) > 0 {
			say("as %s it is covered by the same entity's registration and self-certification as %s.", role, joinRoles(others))
		} else {
			say("as %s, apart from the rest of the chain, it registers and self-certifies for itself.", role)
		}
	case Meets:
		o.Meet = true
		if open.CloudProviderRegisters {
			o.Register = true
			say("as %s it registers and meets guidelines and minimum requirements; it need not self-certify.", role)
		} else {
			say("as %s it meets guidelines and minimum requirements; it need neither self-certify nor, as configured, register.", role)
		}
	default:
		return false
	}
	return true
}

// certifier is the party through which a third party's cloud is evidenced: the
// service provider, else the developer, else who built it for itself.
func (d *Delivery) certifier() string {
	for _, role := range []Role{ServiceProvider, Developer, InHouse} {
		if p := d.holder(role); p != nil {
			return p.ID
		}
	}
	return ""
}

func (d *Delivery) holder(role Role) *Party {
	for i := range d.Parties {
		if slices.Contains(d.Parties[i].Roles, role) {
			return &d.Parties[i]
		}
	}
	return nil
}

// scenarios are the rows that the chain contains, ascending. One entity alone
// may hold roles that it plays for other products: which of the rows for one
// entity is meant is then for it to say.
func (d *Delivery) scenarios() ([]uint8, error) {
	var rows []uint8
	if len(d.Parties) == 1 {
		p := &d.Parties[0]
		may := p.alone()
		switch {
		case d.Scenario == 0:
			return may[:1], nil
		case slices.Contains(may, d.Scenario):
			return []uint8{d.Scenario}, nil
		}
		return nil, Invalid("/scenario", "one entity with the roles %s makes no scenario %d; it may be %s", joinRoles(p.Roles), d.Scenario, joinNumbers(may))
	}
	dev := d.holder(Developer)
	for i := range d.Parties {
		p := &d.Parties[i]
		sp, cp := slices.Contains(p.Roles, ServiceProvider), slices.Contains(p.Roles, CloudProvider)
		switch {
		case slices.Contains(p.Roles, InHouse):
			rows = append(rows, 4)
		case sp && p != dev:
			rows = append(rows, 3)
		case sp:
			rows = append(rows, 2)
		}
		switch {
		case cp && d.offers(p):
			rows = append(rows, 5)
		case cp && !slices.Contains(p.Roles, InHouse):
			rows = append(rows, 6)
		}
	}
	slices.Sort(rows)
	rows = slices.Compact(rows)
	if len(rows) > 1 { // row 2 says nothing that 3, 5 or 6 does not say of the same entity
		rows = slices.DeleteFunc(rows, func(r uint8) bool { return r == 2 })
	}
	if len(rows) == 0 {
		return nil, Invalid("/parties", "the parties make no scenario: give each the role it plays in this product")
	}
	if d.Scenario != 0 && !slices.Contains(rows, d.Scenario) {
		return nil, Invalid("/scenario", "the parties make this scenario %s, not %d: correct the scenario or the roles", joinNumbers(rows), d.Scenario)
	}
	return rows, nil
}

// offers tells whether a party offers the product to users: a service provider,
// or the developer where there is none.
func (d *Delivery) offers(p *Party) bool {
	return slices.Contains(p.Roles, ServiceProvider) || slices.Contains(p.Roles, Developer) && d.holder(ServiceProvider) == nil
}

// alone are the scenarios that one entity by itself may deliver in, the one
// that its roles speak for first.
func (p *Party) alone() []uint8 {
	has := func(r Role) bool { return slices.Contains(p.Roles, r) }
	var may []uint8
	switch {
	case has(Developer) && has(CloudProvider):
		may = []uint8{5, 1, 2}
	case has(Developer) && has(ServiceProvider):
		may = []uint8{2, 1, 5}
	case has(Developer):
		may = []uint8{1, 2, 5}
	case has(ServiceProvider) && has(CloudProvider):
		may = []uint8{5, 3, 2}
	case has(ServiceProvider):
		may = []uint8{3, 2}
	}
	if has(InHouse) {
		may = append([]uint8{4}, may...)
	}
	return may
}

func (d *Delivery) check() error {
	if len(d.Parties) == 0 {
		return Invalid("/parties", "name at least one party and its roles")
	}
	if len(d.Parties) > partiesMax {
		return Invalid("/parties", "names %d parties; at most %d", len(d.Parties), partiesMax)
	}
	if d.Scenario > 6 {
		return Invalid("/scenario", "%d is no scenario; use 1 to 6", d.Scenario)
	}
	seen := map[string]bool{}
	held := map[Role]string{}
	for i, p := range d.Parties {
		at := fmt.Sprintf("/parties/%d", i)
		if p.ID == "" || seen[p.ID] {
			return Invalid(at+"/id", "name each party once")
		}
		seen[p.ID] = true
		if len(p.Roles) == 0 {
			return Invalid(at+"/roles", "name at least one role: D, SP, CP or IHD")
		}
		for j, r := range p.Roles {
			if !slices.Contains(Roles(), r) {
				return Invalid(fmt.Sprintf("%s/roles/%d", at, j), "%q is no role; use D, SP, CP or IHD", r)
			}
			if slices.Contains(p.Roles[:j], r) {
				return Invalid(fmt.Sprintf("%s/roles/%d", at, j), "role %s stands twice", r)
			}
			if other := held[r]; other != "" && r != CloudProvider && r != ServiceProvider {
				return Invalid(at+"/roles", "both %s and %s are %s of this product; one is", other, p.ID, r)
			}
			held[r] = p.ID
		}
	}
	if in := held[InHouse]; in != "" && (held[Developer] != "" && held[Developer] != in || held[ServiceProvider] != "" && held[ServiceProvider] != in) {
		return Invalid("/parties", "an in-house product has no other developer and no service provider")
	}
	if held[InHouse] == "" && held[Developer] == "" && held[ServiceProvider] == "" {
		return Invalid("/parties", "a cloud provider alone delivers no product: name the developer or the service provider")
	}
	return nil
}

func joinRoles(roles []Role) string {
	words := make([]string, len(roles))
	for i, r := range roles {
		words[i] = string(r)
	}
	return strings.Join(words, "/")
}

func joinNumbers(numbers []uint8) string {
	words := make([]string, len(numbers))
	for i, n := range numbers {
		words[i] = fmt.Sprint(n)
	}
	return strings.Join(words, " and ")
}
