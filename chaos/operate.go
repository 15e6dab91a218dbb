package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/dspgate/dspgate/registry"
)

// operate suspends and lifts one product again and again, as operators do who
// have two control planes to turn to, until ctx ends; it leaves the product
// suspended or not, as it comes. With a fault on the heels of a suspension it has
// patience: it hears the wait out, and lifts only when nobody may serve any more.
func (t *trial) operate(ctx context.Context, product string, rng *rand.Rand) {
	pause := func(low, high int) bool {
		wait(ctx, millis(rng, low, high))
		return ctx.Err() == nil
	}
	for pause(10, 150) {
		var s Suspension
		for s.ID == "" {
			patient := t.ambushed() || rng.IntN(8) == 0
			timeout := millis(rng, 200, 1500)
			if patient {
				timeout = leaseLong + millis(rng, 300, 900)
			}
			t.spring(ctx, onAsked)
			var err error
			// What was asked for is heard out, also when the trial is over.
			if s, err = t.suspend(context.WithoutCancel(ctx), product, timeout); err == nil {
				t.spring(context.WithoutCancel(ctx), onAnswered)
				if patient {
					time.Sleep(time.Until(s.boundAll()) + millis(rng, 100, 400))
				}
				break
			}
			t.say("suspend %s: %v", product, err)
			if !pause(20, 200) {
				return
			}
		}
		if !pause(20, 400) {
			return
		}
		t.lifting(s.ID)
		for {
			err := t.lift(context.WithoutCancel(ctx), s.ID)
			if err == nil {
				break
			}
			t.say("lift %s: %v", s.ID, err)
			if !pause(20, 200) {
				return
			}
		}
	}
}

// suspend asks either control plane; the answer is kept when it says that the
// suspension is committed and durable.
func (t *trial) suspend(ctx context.Context, product string, wait time.Duration) (s Suspension, err error) {
	body := map[string]any{"subject": map[string]string{"kind": "product", "id": product}, "reason": "a chaos trial"}
	var answer struct {
		Data struct {
			ID          string                `json:"id"`
			Enforcement *registry.Enforcement `json:"enforcement"`
		} `json:"data"`
	}
	called := time.Now()
	if err := t.command(ctx, t.world.Operator, "/v1/suspensions?wait=true&timeout="+url.QueryEscape(wait.String()), body, &answer); err != nil {
		return s, err
	}
	returned := time.Now()
	e := answer.Data.Enforcement
	if answer.Data.ID == "" || e == nil {
		return s, fmt.Errorf("the answer has no ID or no enforcement")
	}
	s = Suspension{ID: answer.Data.ID, Product: product, Called: called, Returned: returned, Complete: e.Complete, Sidecars: e.Sidecars}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.history.Suspensions = append(t.history.Suspensions, s)
	return s, nil
}

// lifting notes that a lift is about to be asked for, of every answer about it.
func (t *trial) lifting(id string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	for i := range t.history.Suspensions {
		if s := &t.history.Suspensions[i]; s.ID == id && s.LiftCalled.IsZero() {
			s.LiftCalled = now
		}
	}
}

// liftAll lifts whatever suspends a product, before a trial.
func (t *trial) liftAll(ctx context.Context, product string) {
	var all struct {
		Data []struct {
			ID string `json:"id"`
		} `json:"data"`
	}
	if err := t.get(ctx, "/v1/suspensions?active=true&limit=100&product_id="+product, &all); err != nil {
		t.say("%v", err)
		return
	}
	for _, s := range all.Data {
		if err := t.lift(ctx, s.ID); err != nil {
			t.say("lift %s: %v", s.ID, err)
		}
	}
}

func (t *trial) lift(ctx context.Context, id string) error {
	return t.command(ctx, t.world.Operator2, "/v1/suspensions/"+id+"/lift", map[string]string{"reason": "a chaos trial"}, nil)
}

// command posts to the control planes in turn until one takes it. Each attempt
// is a command of its own: what became of one that failed is not known.
func (t *trial) command(ctx context.Context, token, path string, body, answer any) error {
	b, err := json.Marshal(body)
	if err != nil {
		return err
	}
	for i := range t.world.Controls {
		if err = t.post(ctx, t.world.Controls[i].URL+path, token, b, answer); err == nil {
			return nil
		}
	}
	return err
}

func (t *trial) post(ctx context.Context, address, token string, body []byte, answer any) error {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/json")
	resp, err := t.operators.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return err
	}
	if resp.StatusCode >= 300 {
		var told struct {
			Errors []struct{ Code, Detail string }
		}
		if json.Unmarshal(b, &told) != nil || len(told.Errors) == 0 {
			return fmt.Errorf("%d: %.300q", resp.StatusCode, b)
		}
		return fmt.Errorf("%d %s: %s", resp.StatusCode, told.Errors[0].Code, told.Errors[0].Detail)
	}
	if answer == nil {
		return nil
	}
	return json.Unmarshal(b, answer)
}

// commandTimeout is how long an operator waits before turning to the other
// control plane: longer than any wait that is asked for.
const commandTimeout = 7 * time.Second

// call is one service that a product's traffic asks for.
type call struct {
	product, path string
	risk          registry.Risk
}

// traffic are the calls of a trial: two products, each with a service of the
// long lease and one of the short.
func traffic() []call {
	var all []call
	for _, p := range products() {
		all = append(all,
			call{p, "/registry/v1/abns/65000000101", 1},
			call{p, "/lodgments/v1/activity-statements/AS-1", 3})
	}
	return all
}

func products() []string { return []string{"FP-1001", "FP-1003"} }

// risks tells the rating of a service that the traffic asks for.
func risks() map[string]registry.Risk {
	return map[string]registry.Risk{"abr.lookup": 1, "as.0004.get": 3}
}

// requests sends one call through one Envoy at a steady rate until ctx ends.
// One that takes long does not hold up the next.
func (t *trial) requests(ctx context.Context, c call, envoy int, every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	room := make(chan struct{}, 8)
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		select {
		case room <- struct{}{}:
			wg.Go(func() {
				r := t.request(context.WithoutCancel(ctx), c, envoy)
				t.mu.Lock()
				t.history.Requests = append(t.history.Requests, r)
				t.mu.Unlock()
				<-room
			})
		default: // the Envoy is stopped; enough wait for it
		}
	}
}

func (t *trial) request(ctx context.Context, c call, envoy int) (r Request) {
	r = Request{Product: c.product, Risk: c.risk, Envoy: envoy}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, t.world.Envoys[envoy].URL+c.path, nil)
	if err != nil {
		return r
	}
	req.Header.Set("Authorization", "Bearer "+t.tokens[c.product])
	r.Sent = time.Now()
	resp, err := t.clients.Do(req)
	if err == nil {
		var body struct {
			Decision string `json:"x-dsp-decision-id"`
			Errors   []struct {
				Code string `json:"code"`
			} `json:"errors"`
		}
		b, rerr := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
		_ = resp.Body.Close() // all of it is read
		r.Status = resp.StatusCode
		if rerr == nil && json.Unmarshal(b, &body) == nil {
			r.Decision = body.Decision
			if len(body.Errors) > 0 {
				r.Code = body.Errors[0].Code
			}
		}
	}
	r.Done = time.Now()
	return r
}
