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
// suspended or not, as it comes.
func (t *trial) operate(ctx context.Context, product string, rng *rand.Rand) {
	pause := func(low, high int) bool {
		select {
		case <-ctx.Done():
			return false
		case <-time.After(time.Duration(low+rng.IntN(high-low)) * time.Millisecond):
			return true
		}
	}
	for pause(20, 200) {
		var id string
		for id == "" {
			// What was asked for is heard out, also when the trial is over.
			s, err := t.suspend(context.WithoutCancel(ctx), product, time.Duration(300+rng.IntN(2500))*time.Millisecond)
			if err == nil {
				id = s
				break
			}
			t.say("suspend %s: %v", product, err)
			if !pause(20, 200) {
				return
			}
		}
		if !pause(50, 600) {
			return
		}
		t.lifting(id)
		for {
			err := t.lift(context.WithoutCancel(ctx), id)
			if err == nil {
				break
			}
			t.say("lift %s: %v", id, err)
			if !pause(20, 200) {
				return
			}
		}
	}
}

// suspend asks either control plane; the answer is kept when it says that the
// suspension is committed and durable.
func (t *trial) suspend(ctx context.Context, product string, wait time.Duration) (id string, err error) {
	body := map[string]any{"subject": map[string]string{"kind": "product", "id": product}, "reason": "a chaos trial"}
	var answer struct {
		Data struct {
			ID          string                `json:"id"`
			Enforcement *registry.Enforcement `json:"enforcement"`
		} `json:"data"`
	}
	called := time.Now()
	if err := t.command(ctx, t.world.Operator, "/v1/suspensions?wait=true&timeout="+url.QueryEscape(wait.String()), body, &answer); err != nil {
		return "", err
	}
	returned := time.Now()
	e := answer.Data.Enforcement
	if answer.Data.ID == "" || e == nil {
		return "", fmt.Errorf("the answer has no ID or no enforcement")
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.history.Suspensions = append(t.history.Suspensions, Suspension{
		ID: answer.Data.ID, Product: product, Called: called, Returned: returned, Complete: e.Complete, Sidecars: e.Sidecars,
	})
	return answer.Data.ID, nil
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
		return fmt.Errorf("%d: %.300s", resp.StatusCode, b)
	}
	if answer == nil {
		return nil
	}
	return json.Unmarshal(b, answer)
}

// commandTimeout is how long an operator waits before turning to the other
// control plane: longer than any wait that is asked for.
const commandTimeout = 4 * time.Second

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
