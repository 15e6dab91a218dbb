package control

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/intake"
)

// importTimeout bounds one import; 100,000 products take a part of it.
const importTimeout = 5 * time.Minute

// importLine is one line of an import's answer: a report, or what ended it.
type importLine struct {
	*intake.Report
	Summary *intake.Summary `json:"summary,omitempty"`
	Error   *errorBody      `json:"error,omitempty"`
}

// importProducts takes a register as the request's body and answers, line by
// line as it goes, what became of each product: the answer is also the progress.
// What ends it before its end stands in the last line.
func (s *server) importProducts(c *call) (answer, error) {
	if s.intake == nil {
		return answer{}, errNoCasework
	}
	format, ok, err := c.filterWord("format")
	if err != nil {
		return answer{}, err
	}
	if !ok {
		return answer{}, wrongParam("format", "write csv or json")
	}
	dry, _, err := c.filterBool("dry_run")
	if err != nil {
		return answer{}, err
	}
	from, err := c.filterUint("from_line", 1, 1<<31, 1)
	if err != nil {
		return answer{}, err
	}
	select {
	case s.importing <- struct{}{}:
		defer func() { <-s.importing }()
	default:
		return answer{}, fmt.Errorf("%w: another import is under way; wait for its end", registry.ErrState)
	}
	out := http.NewResponseController(c.w.ResponseWriter)
	deadline := time.Now().Add(importTimeout)
	_ = out.SetReadDeadline(deadline)
	_ = out.SetWriteDeadline(deadline)
	_ = out.EnableFullDuplex() // the report begins before the file has ended; HTTP/2 does so anyway
	enc := json.NewEncoder(c.w)
	begun := false
	begin := func() {
		if !begun {
			begun = true
			c.begin("application/x-ndjson")
		}
	}
	body := http.MaxBytesReader(c.w, c.r.Body, intake.FileBytesMax)
	sum, err := s.intake.Run(c.r.Context(), c.actor, body, intake.Options{Format: intake.Format(format), DryRun: dry, FromLine: int(from), Reason: "import"}, func(reports []intake.Report) error {
		begin()
		for i := range reports {
			if err := enc.Encode(importLine{Report: &reports[i]}); err != nil {
				return err
			}
		}
		return out.Flush()
	})
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		err = fmt.Errorf("%w: the file has more than %d MiB", errTooLarge, intake.FileBytesMax>>20)
	}
	if err != nil && !begun {
		return answer{}, err // nothing was answered yet: an ordinary refusal
	}
	begin()
	last := importLine{Summary: &sum}
	if err != nil {
		e := c.errorBody(err, judge(err))
		last.Error = &e
		s.log.WarnContext(c.r.Context(), "import ended early", "request_id", c.id, "lines", sum.Lines, "err", err)
	}
	_ = enc.Encode(last) // the caller hung up: nobody is left to tell
	return answer{}, nil
}

// exportProducts writes the products that the caller may know of, as an import
// takes them.
func (s *server) exportProducts(c *call) (answer, error) {
	format, ok, err := c.filterWord("format")
	if err != nil {
		return answer{}, err
	}
	if !ok {
		format = string(intake.CSV)
	}
	media := "text/csv; charset=utf-8"
	if format == string(intake.JSON) {
		media = "application/x-ndjson"
	}
	if c.unchanged(fmt.Sprintf(`"%d-%s-%s"`, c.view.Revision, format, c.actor.Entity)) {
		return answer{}, nil
	}
	all := s.lists.products.get(c.view, (*registry.View).Products)
	if err := s.noteReadingOf(c, "products/all"); err != nil {
		return answer{}, err
	}
	c.w.Header().Set("Content-Disposition", `attachment; filename="products.`+format+`"`)
	c.begin(media)
	err = intake.Write(c.w, intake.Format(format), func(yield func(intake.Line) bool) {
		for _, e := range all {
			if mayKnowProduct(c, &e.Value) && !yield(s.exported(c, &e.Value)) {
				return
			}
		}
	})
	if err != nil {
		s.log.WarnContext(c.r.Context(), "export broke off", "request_id", c.id, "err", err)
	}
	return answer{}, nil
}

// exported leaves out another owner's contact: a developer may see products that
// it only helps to deliver.
func (s *server) exported(c *call, p *registry.Product) intake.Line {
	l := intake.LineOf(c.view, p)
	if !c.actor.MaySee(p.Owner) {
		l.Contact = ""
	}
	return l
}
