package accesslog

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/dspgate/dspgate/authz"
	"github.com/dspgate/dspgate/registry"
)

// ErrLine is wrapped by every error of ParseLine.
var ErrLine = errors.New("no line of an access log")

// LineMax bounds a line that is read, in bytes.
const LineMax = 64 << 10

// line is a line of the access log as package xds has Envoy write it: numbers may
// come as text, and what there is none of is null.
type line struct {
	Start      *time.Time  `json:"start_time"`
	Duration   *number     `json:"duration_ms"`
	Status     *number     `json:"status"`
	Service    string      `json:"service"`
	Method     string      `json:"method"`
	BytesIn    *number     `json:"bytes_in"`
	BytesOut   *number     `json:"bytes_out"`
	Decision   string      `json:"decision_id"`
	Reason     string      `json:"reason"`
	Sidecar    string      `json:"sidecar"`
	Subject    *authz.Hash `json:"subject_hash"`
	Refused    string      `json:"refused_product"`
	RefusedEnv string      `json:"refused_environment"`
	RefusedVer string      `json:"refused_version"`
	RefusedABN string      `json:"refused_abn"`
	RefusedID  string      `json:"refused_software_id"`
	ABN        string      `json:"abn"`
	Product    string      `json:"product_id"`
	Version    string      `json:"product_version"`
	SoftwareID string      `json:"software_id"`
	Env        string      `json:"environment"`
}

// number is one that may be written as text.
type number uint64

// UnmarshalJSON accepts 7 and "7".
func (n *number) UnmarshalJSON(b []byte) error {
	v, err := strconv.ParseUint(string(bytes.Trim(b, `"`)), 10, 53)
	*n = number(v)
	return err
}

func (n *number) value() uint64 {
	if n == nil {
		return 0
	}
	return uint64(*n)
}

// ParseLine reads one line. Members it does not know are passed over; a member
// of a wrong type, a time, reason, decision or ABN that is none, and a line
// without a time or status are refused, and the error names the member.
func ParseLine(b []byte) (*authz.Recorded, error) {
	if len(b) > LineMax {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrLine, len(b), LineMax)
	}
	var l line
	d := json.NewDecoder(bytes.NewReader(b))
	if err := d.Decode(&l); err != nil {
		return nil, lineError(err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w: more than one value", ErrLine)
	}
	r := &authz.Recorded{
		Service: l.Service, Method: l.Method, Duration: time.Duration(min(l.Duration.value(), 1e9)) * time.Millisecond,
		Status: int(min(l.Status.value(), 999)), BytesOut: l.BytesOut.value(), Sidecar: l.Sidecar,
		Product: l.Product, Version: l.Version, SSID: l.SoftwareID,
	}
	if l.Start == nil {
		return nil, fmt.Errorf("%w: start_time is missing", ErrLine)
	}
	if l.Status == nil {
		return nil, fmt.Errorf("%w: status is missing", ErrLine)
	}
	r.At = *l.Start
	if r.Product == "" {
		r.Product, r.Version, r.SSID = l.Refused, l.RefusedVer, l.RefusedID
		l.ABN, l.Env = cmp.Or(l.ABN, l.RefusedABN), cmp.Or(l.Env, l.RefusedEnv)
	}
	if l.Subject != nil {
		r.Subject = *l.Subject
	}
	if err := l.words(r); err != nil {
		return nil, err
	}
	return r, nil
}

// words reads what is out of a closed set, or has a checksum.
func (l *line) words(r *authz.Recorded) error {
	r.Reason = authz.AuthorizerUnavailable
	if l.Reason != "" {
		v, ok := authz.ParseReason(l.Reason)
		if !ok {
			return fmt.Errorf("%w: reason: there is no such one", ErrLine)
		}
		r.Reason = v
	}
	if l.Decision != "" && copy(r.Decision[:], l.Decision) != len(r.Decision) || len(l.Decision) > len(r.Decision) {
		return fmt.Errorf("%w: decision_id: not %d characters", ErrLine, len(r.Decision))
	}
	if l.ABN != "" {
		abn, err := registry.ParseABN(l.ABN)
		if err != nil {
			return fmt.Errorf("%w: abn: no ABN", ErrLine)
		}
		r.Holder = abn
	}
	if l.Env != "" {
		if err := r.Environment.UnmarshalText([]byte(l.Env)); err != nil {
			return fmt.Errorf("%w: environment: there is no such one", ErrLine)
		}
	}
	return nil
}

// lineError says where, and repeats nothing of the line: it may be anything.
func lineError(err error) error {
	var wrong *json.UnmarshalTypeError
	var syntax *json.SyntaxError
	switch {
	case errors.As(err, &wrong) && wrong.Field != "":
		return fmt.Errorf("%w: %s: not what belongs there", ErrLine, wrong.Field)
	case errors.As(err, &syntax):
		return fmt.Errorf("%w: not JSON at byte %d", ErrLine, syntax.Offset)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%w: it ends too early", ErrLine)
	}
	return fmt.Errorf("%w: a member is not what belongs there", ErrLine)
}
