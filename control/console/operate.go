package console

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/dspgate/dspgate/registry"
)

// Suspending and lifting, the sidecars, and why a call was refused.

const (
	suspendWait = 2 * time.Second  // before the page is shown; its events go on
	eventWait   = time.Second      // of one question to the API
	eventsMax   = 20 * time.Second // of one stream of events; the browser begins another
)

// committed takes what is in force though it is not durable everywhere yet: its
// own page says how far it has come.
func committed(made suspension, err error) (suspension, error) {
	var e *apiError
	if asAPI(err, &e) && e.Code == "not-durable" && json.Unmarshal(e.Meta.Data, &made) == nil && made.ID != "" {
		return made, nil
	}
	return made, err
}

func (v *visit) suspensions() error {
	p := suspensionsPage{frame: v.frame("Suspensions"), Active: v.query("all") == ""}
	active := ""
	if p.Active {
		active = "true"
	}
	m, err := v.get(&p.Items, "/v1/suspensions", "active", active, "page", v.query("page"), "limit", "20")
	if err != nil {
		return err
	}
	p.Pager = v.pager(m)
	return v.show(200, "suspensions", p)
}

func (v *visit) suspension() error { return v.showSuspension(http.StatusOK, nil) }

func (v *visit) showSuspension(status int, wrong *problem) error {
	id := v.r.PathValue("id")
	p := suspensionPage{Problem: wrong, MayAct: v.person.Actor.MaySuspend()}
	if _, err := v.get(&p.Suspension, api("suspensions", id), "wait", "true", "timeout", "1ms"); err != nil {
		return err
	}
	p.Imposer = p.Suspension.ImposedBy == v.person.Actor.Name
	p.frame = v.frame(fmt.Sprintf("Suspension of %s %s", p.Suspension.Subject.Kind, p.Suspension.Subject.ID))
	if e := p.Suspension.Enforcement; e != nil && !e.Complete {
		p.Events = local("suspensions", id, "events")
	}
	return v.show(status, "suspension", p)
}

// suspensionEvents tells, as server-sent events, how far a suspension has come,
// until it is complete.
func (v *visit) suspensionEvents() error {
	rc := http.NewResponseController(v.w)
	ctx, cancel := context.WithTimeout(v.r.Context(), eventsMax)
	defer cancel()
	v.r = v.r.WithContext(ctx)
	began := false
	for ctx.Err() == nil {
		var s suspension
		_, err := v.get(&s, api("suspensions", v.r.PathValue("id")), "wait", "true", "timeout", eventWait.String())
		var refused *apiError
		if !began && asAPI(err, &refused) && refused.Status < http.StatusInternalServerError {
			return err
		}
		if !began {
			v.w.Header().Set("Content-Type", "text/event-stream")
			began, v.shown = true, true
			if _, err := fmt.Fprint(v.w, "retry: 1000\n\n"); err != nil {
				return nil
			}
		}
		if err != nil {
			return rc.Flush() // with an answer, so that the browser asks again; an error would end its asking
		}
		b, err := json.Marshal(s.Enforcement)
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(v.w, "event: enforcement\ndata: %s\n\n", b); err != nil {
			return nil
		}
		if rc.Flush() != nil {
			return nil // the browser has gone
		}
		if s.Enforcement == nil || s.Enforcement.Complete {
			return nil
		}
	}
	return nil
}

func (v *visit) lift() error { return v.actOn("lift", map[string]any{"reason": v.form("reason")}) }

func (v *visit) confirm() error {
	return v.actOn("confirm", map[string]any{"reason": v.form("reason")})
}

func (v *visit) actOn(what string, body any) error {
	id := v.r.PathValue("id")
	var s suspension
	err := v.send(http.MethodPost, api("suspensions", id, what)+"?wait=true&timeout="+suspendWait.String(), body, &s)
	if _, err = committed(s, err); err == nil {
		return v.redirect(local("suspensions", id))
	}
	if wrong := problemOf(err, map[string]string{"/reason": what + "-reason"}); wrong != nil {
		var e *apiError
		asAPI(err, &e)
		if e.Status == http.StatusNotFound {
			return err
		}
		return v.showSuspension(e.Status, wrong)
	}
	return err
}

func (v *visit) sidecars() error {
	p := sidecarsPage{frame: v.frame("Sidecars")}
	if _, err := v.get(&p.Items, "/v1/sidecars", "limit", "100"); err != nil {
		return err
	}
	return v.show(200, "sidecars", p)
}

func (v *visit) decisions() error {
	if id := v.query("id"); id != "" {
		return v.redirect(local("decisions", id))
	}
	p := decisionsPage{frame: v.frame("Decisions"), Product: v.query("product")}
	if p.Product != "" || v.has(registry.PermDeveloper) {
		_, err := v.get(&p.Items, "/v1/decisions", "product_id", p.Product, "limit", "50")
		if p.Problem = problemOf(err, map[string]string{"404": "product"}); err != nil && p.Problem == nil {
			return err
		}
	}
	status := http.StatusOK
	if p.Problem != nil {
		status = http.StatusNotFound
	}
	return v.show(status, "decisions", p)
}

func (v *visit) decision() error {
	var p decisionPage
	if _, err := v.get(&p.Explained, api("decisions", v.r.PathValue("id"))); err != nil {
		return err
	}
	p.frame = v.frame("Why this call was decided so")
	return v.show(200, "decision", p)
}
