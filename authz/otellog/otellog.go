// Package otellog ships decisions and finished calls as OpenTelemetry log
// records, with every tax file number masked.
//
// What is shipped is what is kept anyway: no path, header, token or address, and
// people by keyed hashes. Masking is the second line: a number that got into a
// name is masked in every text, save in decision IDs and hashes, which are made
// here and would not join any more.
package otellog

import (
	"context"
	"encoding/hex"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/log"

	"github.com/dspgate/dspgate/authz"
	"github.com/dspgate/dspgate/internal/identifier"
)

// The events, as the records' event names.
const (
	EventDecision = "dspgate.decision"
	EventCall     = "dspgate.call"
)

// Decisions is a Sink that also ships every record, once, whether or not the
// next one takes it. Shipping never holds it up: the logger queues or drops.
type Decisions struct {
	Next   authz.Sink
	Logger log.Logger

	last  authz.DecisionID // of the last batch shipped
	count int              // its records
}

// Write implements authz.Sink. A batch that was refused is offered again, and
// then not shipped again.
func (d *Decisions) Write(ctx context.Context, batch []authz.Record) error {
	if len(batch) > 0 && (batch[0].ID != d.last || len(batch) != d.count) {
		d.last, d.count = batch[0].ID, len(batch)
		for i := range batch {
			d.Logger.Emit(ctx, decision(&batch[i]))
		}
	}
	return d.Next.Write(ctx, batch)
}

// decision is the record of one.
func decision(r *authz.Record) log.Record {
	e := event{verdict: "refused", severity: log.SeverityWarn}
	if r.Reason == authz.OK {
		e.verdict, e.severity = "allowed", log.SeverityInfo
	}
	e.begin(EventDecision, r.At.Std())
	e.add("dspgate.decision.id", r.ID.String(), true)
	e.add("dspgate.reason", r.Reason.String(), true)
	e.number("http.response.status_code", int64(r.Reason.Status()))
	e.number("dspgate.revision", int64(r.Revision))
	e.add("dspgate.environment", r.Environment.String(), true)
	for _, x := range [...]struct{ key, value string }{
		{"dspgate.service", r.Service}, {"http.route", r.Route}, {"dspgate.product.id", r.ProductID}, {"dspgate.product.version", r.Version},
		{"dspgate.client_app.id", r.ClientID}, {"dspgate.limit", r.Limit}, {"dspgate.shadow_limit", r.Shadow},
		{"dspgate.suspension.id", r.Suspension}, {"dspgate.sidecar.id", r.Sidecar},
	} {
		e.add(x.key, x.value, false)
	}
	if r.Holder != 0 {
		e.add("dspgate.holder.abn", r.Holder.String(), true)
	}
	for _, x := range [...]struct {
		key  string
		hash authz.Hash
	}{{"dspgate.client.hash", r.ClientHash}, {"dspgate.software.hash", r.SSIDHash}, {"dspgate.subject.hash", r.SubjectHash}} {
		if x.hash != (authz.Hash{}) {
			e.add(x.key, hex.EncodeToString(x.hash[:]), true)
		}
	}
	return e.record()
}

// Call is a finished one, as the access log tells of it.
type Call struct {
	Decision         authz.DecisionID // zero when nobody decided
	Reason           authz.Reason
	Service          string
	Start            time.Time
	Duration         time.Duration
	Status           int
	BytesIn          uint64
	BytesOut         uint64
	ReachedAUpstream bool
}

// Ship ships a finished call.
func Ship(ctx context.Context, to log.Logger, c *Call) {
	e := event{verdict: "finished", severity: log.SeverityInfo}
	if c.Status == 0 || c.Status >= 500 {
		e.severity = log.SeverityError
	}
	e.begin(EventCall, c.Start.Add(c.Duration))
	if !c.Decision.IsZero() {
		e.add("dspgate.decision.id", c.Decision.String(), true)
	}
	e.add("dspgate.reason", c.Reason.String(), true)
	e.add("dspgate.service", c.Service, false)
	e.number("http.response.status_code", int64(c.Status))
	e.number("http.request.body.size", int64(min(c.BytesIn, 1<<62)))
	e.number("http.response.body.size", int64(min(c.BytesOut, 1<<62)))
	e.number("dspgate.duration_ms", c.Duration.Milliseconds())
	e.attributes = append(e.attributes, attribute.Bool("dspgate.reached_upstream", c.ReachedAUpstream))
	to.Emit(ctx, e.record())
}

// event is a record in the making.
type event struct {
	verdict    string
	severity   log.Severity
	r          log.Record
	attributes []attribute.KeyValue
}

func (e *event) begin(name string, at time.Time) {
	e.r.SetEventName(name)
	e.r.SetTimestamp(at)
	e.r.SetSeverity(e.severity)
	e.r.SetBody(attribute.StringValue(e.verdict))
}

// add leaves out what is empty. ours are texts that no name of the register and
// no caller gets into.
func (e *event) add(key, value string, ours bool) {
	if value == "" {
		return
	}
	if !ours {
		value = identifier.MaskTFN(value)
	}
	e.attributes = append(e.attributes, attribute.String(key, value))
}

func (e *event) number(key string, v int64) {
	e.attributes = append(e.attributes, attribute.Int64(key, v))
}

func (e *event) record() log.Record {
	e.r.AddAttributes(e.attributes...)
	return e.r
}
