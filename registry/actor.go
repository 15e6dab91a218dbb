package registry

// Permission is what a person or program may command; never confused with a
// Role, which is what an entity is in the scheme.
type Permission uint8

// The permissions of the contract.
const (
	PermDeveloper Permission = 1 << iota // own entity only
	PermAuditor
	PermAssessor
	PermRegistrar
	PermIncidentOfficer
	PermOperator
)

var permissionWords = map[string]Permission{
	"developer": PermDeveloper, "auditor": PermAuditor, "assessor": PermAssessor,
	"registrar": PermRegistrar, "incident-officer": PermIncidentOfficer, "operator": PermOperator,
}

// ParsePermission reads one permission's word; ok is false for an unknown one.
func ParsePermission(word string) (p Permission, ok bool) {
	p, ok = permissionWords[word]
	return p, ok
}

// Actor is who commands.
type Actor struct {
	Name        string     // stable subject, e.g. operator@agency.example
	Permissions Permission // union
	Entity      ABN        // for a developer: the only entity it may see
}

// Has tells whether the actor holds any of the permissions.
func (a Actor) Has(p Permission) bool { return a.Permissions&p != 0 }

// Staff tells whether the actor may see every entity.
func (a Actor) Staff() bool { return a.Has(^PermDeveloper) }

// MaySee tells whether the actor may know of an entity's records.
func (a Actor) MaySee(abn ABN) bool {
	return a.Staff() || (a.Has(PermDeveloper) && a.Entity != 0 && a.Entity == abn)
}

// MaySuspend: operators and incident officers suspend and lift, nobody else.
func (a Actor) MaySuspend() bool { return a.Has(PermOperator | PermIncidentOfficer) }
