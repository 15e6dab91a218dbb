package control

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/assurance"
	"github.com/dspgate/dspgate/registry/certification"
)

// uploadTimeout is how long a file may take to arrive: 20 MiB in two minutes is
// a slow line.
const uploadTimeout = 2 * time.Minute

func (s *server) listEvidence(c *call) (answer, error) {
	_, book, err := s.desk()
	if err != nil {
		return answer{}, err
	}
	return cases(c, book, showCase[assurance.Evidence], "product_id", "requirement", "type")
}

func (s *server) getEvidence(c *call) (answer, error) {
	d, _, err := s.desk()
	if err != nil {
		return answer{}, err
	}
	x, err := d.Evidence(c.actor, c.path("id"))
	return oneCase(x, err, showCase)
}

// evidenceContent sends what a piece of evidence holds, as a file to be saved:
// no browser shows it in the console's origin.
func (s *server) evidenceContent(c *call) (answer, error) {
	d, _, err := s.desk()
	if err != nil {
		return answer{}, err
	}
	x, f, err := d.OpenEvidence(c.r.Context(), c.actor, c.path("id"))
	if err != nil {
		return answer{}, err
	}
	defer f.Close()
	if err := s.noteReading(c, answer{data: record{&x.Body, x.Revision}}); err != nil {
		return answer{}, err
	}
	c.download(string(x.Body.Media), x.ID+suffix(x.Body.Media), x.Body.Address, f)
	return answer{}, nil
}

func suffix(m certification.Media) string {
	switch m {
	case certification.PDF:
		return ".pdf"
	case certification.PNG:
		return ".png"
	case certification.JPEG:
		return ".jpg"
	case certification.JSON:
		return ".json"
	case certification.DOCX:
		return ".docx"
	case certification.XLSX:
		return ".xlsx"
	}
	return ".txt"
}

// submitEvidence takes the file as the request's body: it is read once, past the
// checks, into its place. Sending it again changes nothing.
func (s *server) submitEvidence(c *call) (answer, error) {
	d, _, err := s.desk()
	if err != nil {
		return answer{}, err
	}
	sub := assurance.Submission{ProductID: c.path("id")}
	typ, _ := c.filter("type")
	sub.Type = certification.EvidenceType(typ)
	if list, ok := c.filter("requirements"); ok && list != "" {
		sub.Requirements = strings.Split(list, ",")
	}
	sub.Note, _ = c.filter("note")
	for _, x := range []struct {
		name string
		to   *registry.Time
	}{{"issued_at", &sub.Issued}, {"expires_at", &sub.Expires}} {
		if v, ok := c.filter(x.name); ok {
			if err := x.to.UnmarshalText([]byte(v)); err != nil {
				return answer{}, &paramError{parameter: x.name, err: err}
			}
		}
	}
	if c.r.ContentLength > certification.EvidenceBytesMax {
		return answer{}, errEvidenceTooLarge
	}
	// The deadline of ordinary requests is too short for a large file.
	_ = http.NewResponseController(c.w.ResponseWriter).SetReadDeadline(time.Now().Add(uploadTimeout))
	body := http.MaxBytesReader(c.w, c.r.Body, certification.EvidenceBytesMax+1)
	x, existing, err := d.SubmitEvidence(c.r.Context(), c.actor, sub, upload{body})
	for _, name := range []string{"type", "requirements", "issued_at", "expires_at", "note"} {
		err = pathField(err, "/"+name, name)
	}
	return caseDone(x, existing, err, created, showCase)
}

// upload says of a body that breaks off what other bodies say.
type upload struct{ r io.Reader }

func (u upload) Read(b []byte) (int, error) {
	n, err := u.r.Read(b)
	if err != nil && err != io.EOF {
		err = fmt.Errorf("%w: the body broke off", errMalformed)
	}
	return n, err
}

type approveBody struct {
	Reason string `json:"reason,omitempty" maxLength:"500" doc:"Why; kept in the log."`
}

func (s *server) approveEvidence(c *call, in *approveBody) (answer, error) {
	return onCase(s, c, in.Reason, func(d *assurance.Desk, id string, m registry.Meta) (*registry.Case[assurance.Evidence], bool, error) {
		return d.ApproveEvidence(c.r.Context(), c.actor, id, m)
	})
}
