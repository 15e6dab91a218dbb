package certification

import (
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/token"
)

//go:embed data
var embedded embed.FS

// Framework is all the rules together, immutable once loaded.
type Framework struct {
	Matrix         Matrix
	Catalogues     []*Catalogue // by the day they take effect
	Questionnaires []*Questionnaire
	Risk           RiskModel
	Standards      Standards
	Selection      SelectionRule
	Open           Open
}

// dataBytesMax bounds one data file.
const dataBytesMax = 1 << 20

// Default is the framework as embedded.
func Default(open Open) (*Framework, error) { return Load(open) }

// Load reads the embedded rules and lays more beside them: further catalogue-
// and questionnaire-*.yaml files of the folders given add versions; a roles,
// risk, selection or standards.yaml takes the embedded one's place.
func Load(open Open, more ...fs.FS) (*Framework, error) {
	if err := open.Check(); err != nil {
		return nil, err
	}
	base, err := fs.Sub(embedded, "data")
	if err != nil {
		return nil, err
	}
	f := &Framework{Open: open}
	for _, folder := range append([]fs.FS{base}, more...) {
		if err := f.read(folder); err != nil {
			return nil, err
		}
	}
	return f, f.check()
}

func (f *Framework) read(folder fs.FS) error {
	names, err := fs.Glob(folder, "*.yaml")
	if err != nil {
		return err
	}
	for _, name := range names {
		b, err := readBounded(folder, name)
		if err != nil {
			return fmt.Errorf("%w: %s: %w", ErrData, name, err)
		}
		if err := f.add(name, b); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

func readBounded(folder fs.FS, name string) ([]byte, error) {
	file, err := folder.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }() // read only: nothing is lost
	b, err := io.ReadAll(io.LimitReader(file, dataBytesMax+1))
	if err == nil && len(b) > dataBytesMax {
		err = fmt.Errorf("is larger than %d bytes", dataBytesMax)
	}
	return b, err
}

// add takes one file in, by its name.
func (f *Framework) add(name string, b []byte) error {
	base := strings.TrimSuffix(path.Base(name), ".yaml")
	switch {
	case base == "roles":
		f.Matrix = Matrix{}
		return decode(b, &f.Matrix)
	case base == "risk":
		f.Risk = RiskModel{}
		return decode(b, &f.Risk)
	case base == "standards":
		f.Standards = Standards{}
		return decode(b, &f.Standards)
	case base == "selection":
		f.Selection = SelectionRule{}
		return decode(b, &f.Selection)
	case strings.HasPrefix(base, "catalogue-"):
		c := new(Catalogue)
		if err := decode(b, c); err != nil {
			return err
		}
		f.Catalogues = append(f.Catalogues, c)
		return nil
	case strings.HasPrefix(base, "questionnaire-"):
		q := new(Questionnaire)
		if err := decode(b, q); err != nil {
			return err
		}
		f.Questionnaires = append(f.Questionnaires, q)
		return nil
	}
	return fmt.Errorf("%w: the name says nothing; use catalogue-*, questionnaire-*, roles, risk, selection or standards", ErrData)
}

// decode reads one YAML document strictly: an unknown or repeated key is an error.
func decode(b []byte, out any) error {
	if err := yaml.UnmarshalWithOptions(b, out, yaml.Strict()); err != nil {
		var y yaml.Error
		if errors.As(err, &y) && y.GetToken() != nil {
			return fmt.Errorf("%w: line %d: %s", ErrData, y.GetToken().Position.Line, y.GetMessage())
		}
		return fmt.Errorf("%w: %w", ErrData, err)
	}
	return nil
}

func (f *Framework) check() error {
	if err := f.Matrix.check(); err != nil {
		return err
	}
	if len(f.Catalogues) == 0 {
		return fmt.Errorf("%w: there is no catalogue", ErrData)
	}
	slices.SortFunc(f.Catalogues, func(a, b *Catalogue) int { return a.Effective.Compare(b.Effective.Time) })
	for i, c := range f.Catalogues {
		if err := c.check(); err != nil {
			return err
		}
		if i > 0 && (f.Catalogues[i-1].Version == c.Version || f.Catalogues[i-1].Effective.Equal(c.Effective.Time)) {
			return fmt.Errorf("%w: two catalogues are version %s or take effect on the same day", ErrData, c.Version)
		}
	}
	for _, q := range f.Questionnaires {
		c := f.Catalogue(q.Catalogue)
		if q.Catalogue != "" && c == nil {
			return fmt.Errorf("%w: questionnaire %s asks about catalogue %q, which there is not", ErrData, q.ID, q.Catalogue)
		}
		if err := q.check(func(id string) bool { return c != nil && c.Requirement(id) != nil }); err != nil {
			return err
		}
	}
	if err := f.Risk.check(); err != nil {
		return err
	}
	if err := f.Selection.Check(); err != nil {
		return err
	}
	return f.Standards.check(func(id string) bool {
		return slices.ContainsFunc(f.Catalogues, func(c *Catalogue) bool { return c.Requirement(id) != nil })
	})
}

// Documents are the newest embedded catalogue and the questionnaire that asks
// about it, as YAML: where a next version begins.
func Documents() (catalogue, questionnaire []byte, err error) {
	for _, d := range []struct {
		out     *[]byte
		pattern string
	}{{&catalogue, "data/catalogue-*.yaml"}, {&questionnaire, "data/questionnaire-self-certification-*.yaml"}} {
		names, err := fs.Glob(embedded, d.pattern)
		if err != nil || len(names) == 0 {
			return nil, nil, fmt.Errorf("%w: no %s: %w", ErrData, d.pattern, err)
		}
		if *d.out, err = embedded.ReadFile(slices.Max(names)); err != nil {
			return nil, nil, err
		}
	}
	return catalogue, questionnaire, nil
}

// ReadCatalogue reads one catalogue, without holding it against others.
func ReadCatalogue(document []byte) (*Catalogue, error) {
	if len(document) > dataBytesMax {
		return nil, fmt.Errorf("%w: is larger than %d bytes", ErrData, dataBytesMax)
	}
	c := new(Catalogue)
	if err := decodeForeign(document, c); err != nil {
		return nil, err
	}
	return c, c.check()
}

// decodeForeign decodes a document that came over the wire. Anchors are refused:
// a small document could be made a huge one of them.
func decodeForeign(document []byte, out any) error {
	for _, t := range lexer.Tokenize(string(document)) {
		if t.Type == token.AnchorType || t.Type == token.AliasType {
			return fmt.Errorf("%w: line %d: anchors and aliases are not accepted; write it out", ErrData, t.Position.Line)
		}
	}
	return decode(document, out)
}

// With is the framework with one catalogue more and the questionnaire that asks
// about it. The framework itself stays as it is.
func (f *Framework) With(catalogue, questionnaire []byte) (*Framework, *Catalogue, error) {
	c, err := ReadCatalogue(catalogue)
	if err != nil {
		return nil, nil, err
	}
	q := new(Questionnaire)
	if len(questionnaire) > dataBytesMax {
		return nil, nil, fmt.Errorf("%w: the questionnaire is larger than %d bytes", ErrData, dataBytesMax)
	}
	if err := decodeForeign(questionnaire, q); err != nil {
		return nil, nil, fmt.Errorf("the questionnaire: %w", err)
	}
	if q.ID != SelfCertification || q.Catalogue != c.Version {
		return nil, nil, fmt.Errorf("%w: the questionnaire is %q about catalogue %q; it must be %q about %q", ErrData, cut(q.ID), cut(q.Catalogue), SelfCertification, c.Version)
	}
	next := *f
	next.Catalogues = append(slices.Clone(f.Catalogues), c)
	next.Questionnaires = append(slices.Clone(f.Questionnaires), q)
	return &next, c, next.check()
}

// Catalogue finds a version; nil when there is none.
func (f *Framework) Catalogue(version string) *Catalogue {
	i := slices.IndexFunc(f.Catalogues, func(c *Catalogue) bool { return c.Version == version })
	if i < 0 {
		return nil
	}
	return f.Catalogues[i]
}

// InForce is the catalogue that new self-certifications are made against at an
// instant: the last to have taken effect, or the first there is.
func (f *Framework) InForce(now time.Time) *Catalogue {
	c := f.Catalogues[0]
	for _, next := range f.Catalogues {
		if !next.Effective.After(now) {
			c = next
		}
	}
	return c
}

// The IDs of the questionnaires.
const (
	SelfCertification = "self-certification"
	Ecosystem         = "ecosystem"
)

// Questionnaire finds the one that asks about a version of the catalogue ("" for
// one that asks about none); nil when there is none.
func (f *Framework) Questionnaire(id, catalogue string) *Questionnaire {
	i := slices.IndexFunc(f.Questionnaires, func(q *Questionnaire) bool { return q.ID == id && q.Catalogue == catalogue })
	if i < 0 {
		return nil
	}
	return f.Questionnaires[i]
}
