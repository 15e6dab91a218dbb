package certification

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Facts are what conditions ask about: a name, and its values. A number is one
// value in decimal; yes and no are words. A name that is missing is unknown.
type Facts map[string][]string

// One is a fact's only value, "" when there is none or more than one.
func (f Facts) One(name string) string {
	if v := f[name]; len(v) == 1 {
		return v[0]
	}
	return ""
}

// Condition is a question about facts. Whatever of it is stated must hold; the
// zero Condition always does. About an unknown fact nothing holds, and Not
// turns that round like any other answer.
type Condition struct {
	// Fact names what In, AtLeast and Below are about.
	Fact string `yaml:"fact,omitempty" json:"fact,omitempty"`
	// In: one of the fact's values is one of these.
	In []string `yaml:"in,omitempty" json:"in,omitempty"`
	// AtLeast and Below bound the fact, a number.
	AtLeast *int64 `yaml:"at_least,omitempty" json:"at_least,omitempty"`
	Below   *int64 `yaml:"below,omitempty" json:"below,omitempty"`

	All []Condition `yaml:"all,omitempty" json:"all,omitempty"`
	Any []Condition `yaml:"any,omitempty" json:"any,omitempty"`
	Not *Condition  `yaml:"not,omitempty" json:"not,omitempty"`
}

// conditionDepthMax bounds nesting: data deeper than this is a mistake.
const conditionDepthMax = 8

// Holds tells whether the condition holds of the facts.
func (c *Condition) Holds(f Facts) bool {
	if c.Fact != "" && !c.leaf(f) {
		return false
	}
	for i := range c.All {
		if !c.All[i].Holds(f) {
			return false
		}
	}
	if len(c.Any) > 0 && !slices.ContainsFunc(c.Any, func(a Condition) bool { return a.Holds(f) }) {
		return false
	}
	return c.Not == nil || !c.Not.Holds(f)
}

func (c *Condition) leaf(f Facts) bool {
	values, known := f[c.Fact]
	if !known {
		return false
	}
	if len(c.In) > 0 && !slices.ContainsFunc(values, func(v string) bool { return slices.Contains(c.In, v) }) {
		return false
	}
	if c.AtLeast == nil && c.Below == nil {
		return true
	}
	n, err := strconv.ParseInt(f.One(c.Fact), 10, 64)
	return err == nil && (c.AtLeast == nil || n >= *c.AtLeast) && (c.Below == nil || n < *c.Below)
}

// String says the condition in words: "category is A, B or C".
func (c *Condition) String() string {
	var parts []string
	if c.Fact != "" {
		name := strings.ReplaceAll(strings.TrimPrefix(c.Fact, answerFact), "_", " ")
		if len(c.In) > 0 {
			parts = append(parts, name+" is "+orList(c.In))
		}
		if c.AtLeast != nil {
			parts = append(parts, fmt.Sprintf("%s is at least %d", name, *c.AtLeast))
		}
		if c.Below != nil {
			parts = append(parts, fmt.Sprintf("%s is below %d", name, *c.Below))
		}
	}
	for i := range c.All {
		parts = append(parts, c.All[i].String())
	}
	var either []string
	for i := range c.Any {
		either = append(either, c.Any[i].String())
	}
	if len(either) > 0 {
		parts = append(parts, "either "+strings.Join(either, " or "))
	}
	if c.Not != nil {
		parts = append(parts, "not ("+c.Not.String()+")")
	}
	if len(parts) == 0 {
		return "always"
	}
	return strings.Join(parts, " and ")
}

func orList(words []string) string {
	if len(words) == 1 {
		return words[0]
	}
	return strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
}

// Why lists, in words, the facts that the condition rests on where it holds:
// "category A", "role SP". It is empty for a condition that always holds.
func (c *Condition) Why(f Facts) []string {
	var out []string
	if c.Fact != "" {
		out = append(out, factText(c.Fact, f[c.Fact], c.In))
	}
	for i := range c.All {
		out = append(out, c.All[i].Why(f)...)
	}
	for i := range c.Any {
		if c.Any[i].Holds(f) {
			out = append(out, c.Any[i].Why(f)...)
			break
		}
	}
	if c.Not != nil && c.Not.Fact != "" {
		out = append(out, factText(c.Not.Fact, f[c.Not.Fact], nil))
	}
	return out
}

// factText shows the values that matter: those in wanted, when there are any.
func factText(name string, values, wanted []string) string {
	if len(wanted) > 0 {
		values = slices.DeleteFunc(slices.Clone(values), func(v string) bool { return !slices.Contains(wanted, v) })
	}
	name = strings.ReplaceAll(strings.TrimPrefix(name, answerFact), "_", " ")
	if len(values) == 0 {
		return name + " not stated"
	}
	return name + " " + strings.Join(values, ", ")
}

// answerFact starts the name of a fact that is the answer to a question.
const answerFact = "answer:"

// facts lists every fact the condition names.
func (c *Condition) facts() []string {
	var out []string
	if c.Fact != "" {
		out = append(out, c.Fact)
	}
	for i := range c.All {
		out = append(out, c.All[i].facts()...)
	}
	for i := range c.Any {
		out = append(out, c.Any[i].facts()...)
	}
	if c.Not != nil {
		out = append(out, c.Not.facts()...)
	}
	return out
}

// check refuses a condition that can never be what its writer meant.
func (c *Condition) check(known func(fact string) bool, depth int) error {
	if depth > conditionDepthMax {
		return fmt.Errorf("%w: conditions are nested deeper than %d", ErrData, conditionDepthMax)
	}
	asks := len(c.In) > 0 || c.AtLeast != nil || c.Below != nil
	switch {
	case c.Fact == "" && asks:
		return fmt.Errorf("%w: in, at_least and below need a fact", ErrData)
	case c.Fact != "" && !asks:
		return fmt.Errorf("%w: the condition about %q asks nothing; add in, at_least or below", ErrData, c.Fact)
	case c.Fact != "" && !known(c.Fact):
		return fmt.Errorf("%w: there is no fact %q", ErrData, c.Fact)
	}
	for _, list := range [][]Condition{c.All, c.Any} {
		for i := range list {
			if err := list[i].check(known, depth+1); err != nil {
				return err
			}
		}
	}
	if c.Not != nil {
		return c.Not.check(known, depth+1)
	}
	return nil
}
