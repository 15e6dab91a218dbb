package certification

import (
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// QuestionKind is what an answer looks like.
type QuestionKind string

// The kinds of question.
const (
	YesNo  QuestionKind = "yes-no"
	Choice QuestionKind = "choice" // exactly one of Choices
	Choose QuestionKind = "choose" // any number of Choices, none included
	Number QuestionKind = "number" // a whole number, not negative
	Date   QuestionKind = "date"   // 2026-11-22
	Free   QuestionKind = "text"   // for people; never judged, only needed
	HTTPS  QuestionKind = "https-url"
)

// Mark judges an answer. The order is the order of badness.
type Mark uint8

// The marks.
const (
	Unmarked Mark = iota // not asked
	Pass
	Warn
	Unanswered // asked, and not answered yet
	Fail
)

var markWords = []string{"", "pass", "warn", "open", "fail"}

func (m Mark) String() string               { return markWords[m] }
func (m Mark) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText accepts exactly the words of String.
func (m *Mark) UnmarshalText(b []byte) error {
	i := slices.Index(markWords, string(b))
	if i < 0 {
		return fmt.Errorf("%w: %q is no mark; use pass, warn or fail", ErrInvalid, cut(string(b)))
	}
	*m = Mark(i)
	return nil
}

// Questionnaire is one version of the questions that are asked, in order.
type Questionnaire struct {
	ID      string `yaml:"id" json:"id"` // self-certification or ecosystem
	Version string `yaml:"version" json:"version"`
	Title   string `yaml:"title" json:"title"`
	// Catalogue is the version of the requirements it asks about; "" for none.
	Catalogue string     `yaml:"catalogue,omitempty" json:"catalogue,omitempty"`
	Questions []Question `yaml:"questions" json:"questions"`
}

// Question is asked when its requirement applies and its condition holds.
type Question struct {
	ID          string       `yaml:"id" json:"id"` // requirement, dot, number: OSF-AUT.1
	Requirement string       `yaml:"requirement,omitempty" json:"requirement,omitempty"`
	Text        string       `yaml:"text" json:"text"`
	Help        string       `yaml:"help,omitempty" json:"help,omitempty"`
	Kind        QuestionKind `yaml:"kind" json:"kind"`
	Choices     []Option     `yaml:"choices,omitempty" json:"choices,omitempty"`
	// When sees the profile's facts and answer:ID of earlier questions.
	When Condition `yaml:"when,omitempty" json:"when,omitzero"`
	// Marks are tried in order; what none fits passes.
	Marks []MarkRule `yaml:"marks,omitempty" json:"marks,omitempty"`
	// Evidence: the answer must come with evidence of the requirement's types,
	// unless it fails.
	Evidence bool `yaml:"evidence,omitempty" json:"evidence,omitempty"`
	// Optional questions do not hold a submission up.
	Optional bool `yaml:"optional,omitempty" json:"optional,omitempty"`
}

// Option is one choice.
type Option struct {
	Value string `yaml:"value" json:"value"`
	Text  string `yaml:"text" json:"text"`
}

// MarkRule gives a mark to answers. Its condition sees the fact answer, which
// is the one being judged, beside all that Question.When sees.
type MarkRule struct {
	When Condition `yaml:"when" json:"when"`
	Mark Mark      `yaml:"mark" json:"mark"`
	// Say tells the developer, in plain words, what is wrong and what to do.
	Say string `yaml:"say" json:"say"`
}

// Answer is what was answered to one question.
type Answer struct {
	Values   []string `json:"values"`
	Evidence []string `json:"evidence,omitempty"` // content addresses
	Note     string   `json:"note,omitempty"`
}

// Bounds on an answer.
const (
	answerTextMax   = 2000
	answerNoteMax   = 1000
	answerChosenMax = 32
	answerProofsMax = 16
)

// Question finds one by its ID; nil when there is none.
func (q *Questionnaire) Question(id string) *Question {
	for i := range q.Questions {
		if q.Questions[i].ID == id {
			return &q.Questions[i]
		}
	}
	return nil
}

// CheckAnswer refuses what is no answer to the question, saying what would be.
func (q *Question) CheckAnswer(a Answer) error {
	if len(a.Values) == 0 && q.Kind != Choose {
		return Invalid("/values", "give an answer")
	}
	if q.Kind != Choose && len(a.Values) != 1 {
		return Invalid("/values", "give one answer, not %d", len(a.Values))
	}
	if len(a.Values) > answerChosenMax {
		return Invalid("/values", "at most %d", answerChosenMax)
	}
	for i, v := range a.Values {
		if err := q.checkValue(v); err != nil {
			return &FieldError{Field: fmt.Sprintf("/values/%d", i), Err: err}
		}
		if slices.Contains(a.Values[:i], v) {
			return Invalid(fmt.Sprintf("/values/%d", i), "stands twice")
		}
	}
	if err := checkFree(a.Note, answerNoteMax); err != nil {
		return &FieldError{Field: "/note", Err: err}
	}
	if len(a.Evidence) > answerProofsMax {
		return Invalid("/evidence", "at most %d pieces of evidence", answerProofsMax)
	}
	for i, e := range a.Evidence {
		if _, err := ParseAddress(e); err != nil {
			return &FieldError{Field: fmt.Sprintf("/evidence/%d", i), Err: err}
		}
	}
	return nil
}

func (q *Question) checkValue(v string) error {
	wrong := func(format string, args ...any) error {
		return fmt.Errorf("%w: "+format, append([]any{ErrInvalid}, args...)...)
	}
	switch q.Kind {
	case YesNo:
		if v != "yes" && v != "no" {
			return wrong("%q; write yes or no", cut(v))
		}
	case Choice, Choose:
		if !slices.ContainsFunc(q.Choices, func(o Option) bool { return o.Value == v }) {
			var words []string
			for _, o := range q.Choices {
				words = append(words, o.Value)
			}
			return wrong("%q is no choice; use %s", cut(v), strings.Join(words, ", "))
		}
	case Number:
		if n, err := strconv.ParseInt(v, 10, 64); err != nil || n < 0 || v != strconv.FormatInt(n, 10) {
			return wrong("%q is no whole number such as 12", cut(v))
		}
	case Date:
		var d Day
		return d.UnmarshalText([]byte(v))
	case HTTPS:
		if u, err := url.Parse(v); err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || len(v) > 500 {
			return wrong("%q is no address such as https://api.example.com/", cut(v))
		}
	case Free:
		if strings.TrimSpace(v) == "" {
			return wrong("write a sentence or two")
		}
		return checkFree(v, answerTextMax)
	}
	return nil
}

func checkFree(s string, bytesMax int) error {
	switch {
	case len(s) > bytesMax:
		return fmt.Errorf("%w: has %d bytes; at most %d", ErrInvalid, len(s), bytesMax)
	case !utf8.ValidString(s):
		return fmt.Errorf("%w: is not valid UTF-8", ErrInvalid)
	case strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) && r != '\n' }):
		return fmt.Errorf("%w: holds characters that cannot be printed", ErrInvalid)
	case holdsTFN(s):
		return fmt.Errorf("%w: holds what looks like a tax file number; leave it out", ErrInvalid)
	}
	return nil
}

// value is what rules see of an answer: for a date, the days since 1970.
func (q *Question) value(a Answer) []string {
	if q.Kind == Date && len(a.Values) == 1 {
		if t, err := time.Parse(time.DateOnly, a.Values[0]); err == nil {
			return []string{strconv.FormatInt(t.Unix()/86400, 10)}
		}
	}
	return a.Values
}

var questionID = regexp.MustCompile(`^[A-Z]{3,4}(-[A-Z0-9]{1,4})?\.[0-9]{1,2}$`)

const thisAnswer = "answer"

// check refuses a questionnaire that asks about what it cannot know.
func (q *Questionnaire) check(requirements func(id string) bool) error {
	if q.ID == "" || q.Version == "" || q.Title == "" || len(q.Questions) == 0 {
		return fmt.Errorf("%w: a questionnaire needs id, version, title and questions", ErrData)
	}
	facts := append(profileFacts(), todayFact)
	known := map[string]bool{}
	for _, f := range facts {
		known[f] = true
	}
	for i := range q.Questions {
		x := &q.Questions[i]
		if err := x.check(known, requirements); err != nil {
			return fmt.Errorf("questionnaire %s, question %s: %w", q.ID, cut(x.ID), err)
		}
		known[answerFact+x.ID] = true
	}
	return nil
}

func (q *Question) check(known map[string]bool, requirements func(id string) bool) error {
	kinds := []QuestionKind{YesNo, Choice, Choose, Number, Date, Free, HTTPS}
	choices := q.Kind == Choice || q.Kind == Choose
	switch {
	case !questionID.MatchString(q.ID) || known[answerFact+q.ID]:
		return fmt.Errorf("%w: the ID is no OSF-AUT.1, or stands twice", ErrData)
	case q.Text == "" || !slices.Contains(kinds, q.Kind):
		return fmt.Errorf("%w: text and kind are needed", ErrData)
	case choices != (len(q.Choices) > 0):
		return fmt.Errorf("%w: choices go with choice and choose, and with nothing else", ErrData)
	case q.Requirement != "" && !requirements(q.Requirement):
		return fmt.Errorf("%w: there is no requirement %q", ErrData, q.Requirement)
	}
	asks := func(fact string) bool { return known[fact] }
	if err := q.When.check(asks, 0); err != nil {
		return err
	}
	for i, m := range q.Marks {
		if m.Mark != Pass && m.Mark != Warn && m.Mark != Fail || m.Say == "" && m.Mark != Pass {
			return fmt.Errorf("%w: mark %d is pass, warn or fail, and says why unless it is pass", ErrData, i+1)
		}
		if err := m.When.check(func(f string) bool { return f == thisAnswer || known[f] }, 0); err != nil {
			return fmt.Errorf("mark %d: %w", i+1, err)
		}
	}
	return nil
}
