package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/dspgate/dspgate/registry"
)

// listings are the sorted listings of the newest View that was asked for.
type listings struct {
	entities      listing[registry.Entity]
	products      listing[registry.Product]
	apps          listing[registry.ClientApp]
	credentials   listing[registry.Credential]
	subscriptions listing[registry.Subscription]
	services      listing[registry.Service]
	suspensions   listing[registry.Suspension]
	denials       listing[registry.Denial]
	notices       listing[registry.Notice]
	limits        listing[registry.Limit]
}

// Changes reads the log after a revision, oldest first; registry.ErrTrimmed
// when it no longer reaches back that far.
type Changes func(ctx context.Context, after registry.Revision, max int) ([]registry.Change, error)

// changeView is one change as the log shows it: who did what to which records,
// and why; not what the records held.
type changeView struct {
	Revision registry.Revision `json:"revision"`
	At       registry.Time     `json:"at"`
	Actor    string            `json:"actor"`
	Command  string            `json:"command"`
	Reason   string            `json:"reason,omitempty"`
	Records  []string          `json:"records" doc:"Kind and ID, such as product/FP-1001."`
}

// changesPerCall bounds what one listing reads of the log.
const changesPerCall = 1000

func viewChange(ch *registry.Change) changeView {
	v := changeView{Revision: ch.Revision, At: ch.At, Actor: ch.Actor, Command: ch.Command, Reason: ch.Reason, Records: []string{}}
	for i := range ch.Puts {
		v.Records = append(v.Records, ch.Puts[i].Key())
	}
	return v
}

// listChanges reads the log from after=, or the latest of it. total_items is
// how many changes there are behind after, so that pages can be counted.
func (s *server) listChanges(c *call) (answer, error) {
	page, limit, err := c.paging()
	if err != nil {
		return answer{}, err
	}
	head := uint64(c.view.Revision)
	after, err := c.filterUint("after", 0, 1<<53, 0)
	if err != nil {
		return answer{}, err
	}
	if s.changes == nil {
		return answer{}, fmt.Errorf("%w: this control plane has no log to read", registry.ErrUnavailable)
	}
	var total uint64
	if head > after {
		total = head - after
	}
	out := []any{}
	if skip := (page - 1) * limit; skip < total {
		changes, err := s.changes(c.r.Context(), registry.Revision(after+skip), int(min(limit, changesPerCall)))
		if err != nil {
			if errors.Is(err, registry.ErrTrimmed) {
				return answer{}, err
			}
			return answer{}, unavailable(err)
		}
		if len(changes) == 0 || uint64(changes[0].Revision) != after+skip+1 {
			return answer{}, registry.ErrTrimmed // what was asked for begins before the log does
		}
		for i := range changes {
			if uint64(len(out)) < limit {
				out = append(out, viewChange(&changes[i]))
			}
		}
	}
	return answer{data: out, page: c.pageInfo(page, limit, total)}, nil
}

// changeAt reads one change; nil when the log does not hold it any more.
func (s *server) changeAt(c *call, rev registry.Revision) *changeView {
	if s.changes == nil || rev == 0 {
		return nil
	}
	changes, err := s.changes(c.r.Context(), rev-1, 1)
	if err != nil || len(changes) != 1 || changes[0].Revision != rev {
		return nil // it only adds to the answer
	}
	v := viewChange(&changes[0])
	return &v
}

// sidecarView is one sidecar on the roll.
type sidecarView struct {
	ID          string            `json:"id"`
	Incarnation string            `json:"incarnation"`
	Revision    registry.Revision `json:"revision" doc:"Last acknowledged."`
	Lag         registry.Revision `json:"lag" doc:"Revisions behind."`
	DigestOK    *bool             `json:"digest_ok,omitempty" doc:"Whether its digest is that of its revision; left out when the log no longer tells."`
	PolledAt    registry.Time     `json:"polled_at"`
	Lapsed      bool              `json:"lapsed" doc:"Silent for longer than its leases: it can only refuse."`
	ShortLeftMS int64             `json:"short_lease_left_ms" doc:"Of the serving lease for risk ratings 3 and 4; negative when lapsed."`
	LongLeftMS  int64             `json:"long_lease_left_ms"`
}

func (s *server) listSidecars(c *call) (answer, error) {
	all, err := s.reg.Sidecars(c.r.Context())
	if err != nil {
		return answer{}, unavailable(err)
	}
	return paged(c, all, nil, func(x registry.SidecarStatus) any { return sidecarView(x) })
}

// once runs a command at most once for its Idempotency-Key.
func (s *server) once(c *call, key, fingerprint string, do func() (stored, error)) (stored, error) {
	kept, _, err := s.reg.Once(c.r.Context(), key, []byte(fingerprint), func(ctx context.Context) ([]byte, error) {
		c.r = c.r.WithContext(ctx)
		st, err := do()
		if err != nil {
			return nil, err
		}
		return json.Marshal(st)
	})
	if errors.Is(err, registry.ErrKeyReused) {
		return stored{}, errKeyReused
	}
	if err != nil {
		return stored{}, err
	}
	var st stored
	if err := json.Unmarshal(kept, &st); err != nil {
		return stored{}, fmt.Errorf("stored answer: %w", err)
	}
	return st, nil
}
