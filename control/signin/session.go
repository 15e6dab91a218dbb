package signin

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"net/http"
	"time"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/people"
)

// session is who is signed in, as stored.
type session struct {
	Name    string   `json:"name"` // the verified address
	Subject string   `json:"subject"`
	Staff   []string `json:"staff,omitempty"`
	// Entities are those the person acted for at the sign-in, or when asked last;
	// whether it still does is looked up at each request. Entity is the one chosen.
	Entities []registry.ABN `json:"entities,omitempty"`
	Entity   registry.ABN   `json:"entity,omitempty"`
	Began    time.Time      `json:"began"`
	Seen     time.Time      `json:"seen"`
	Named    time.Time      `json:"named"`            // when it got its present cookie
	Passed   bool           `json:"passed,omitempty"` // the cookie before the present one: for requests under way
}

// Person is who is signed in, with what that allows now.
type Person struct {
	Actor registry.Actor
	// Entities are those the person acts for; Actor.Entity is one of them.
	Entities []registry.ABN
	// Ends is when the session ends whatever happens.
	Ends time.Time
}

func (s *SignIn) begin(ctx context.Context, w http.ResponseWriter, who session) error {
	now := s.cfg.Now()
	who.Began, who.Seen, who.Named = now, now, now
	book, err := s.cfg.Casebook()
	if err != nil {
		return err
	}
	who.Entities = people.ActsFor(book, who.Name)
	id := rand.Text() + rand.Text()
	if err := s.put(ctx, "session", id, who, s.ttl(who)); err != nil {
		return err
	}
	s.setCookie(w, s.cookie, id, s.cfg.Absolute)
	return nil
}

// ttl is how long the store keeps a session: until it is idle, or over.
func (s *SignIn) ttl(x session) time.Duration {
	return max(min(s.cfg.Idle, x.Began.Add(s.cfg.Absolute).Sub(s.cfg.Now())), time.Millisecond)
}

// Person finds who is signed in. It may set a cookie, so it goes before the
// answer's header. ErrNobody when there is no session.
func (s *SignIn) Person(w http.ResponseWriter, r *http.Request) (*Person, error) {
	cookie, x, err := s.current(r)
	if err != nil {
		return nil, err
	}
	now := s.cfg.Now()
	if !x.Passed && now.Sub(x.Named) >= renameEvery && r.Method == http.MethodGet && r.Header.Get("Accept") != "text/event-stream" {
		if err := s.rename(r.Context(), w, cookie, x); err != nil {
			return nil, err
		}
	} else if !x.Passed && now.Sub(x.Seen) >= touchEvery {
		x.Seen = now
		if err := s.renew(r.Context(), cookie, x, s.ttl(x)); err != nil {
			return nil, err
		}
	}
	return s.person(x)
}

func (s *SignIn) current(r *http.Request) (cookie string, x session, err error) {
	c, err := r.Cookie(s.cookie)
	if err != nil || c.Value == "" || len(c.Value) > cookieBytesMax {
		return "", x, ErrNobody
	}
	key := s.key("session", c.Value)
	b, err := s.cfg.Store.Get(r.Context(), key)
	if err != nil {
		return "", x, err
	}
	found, err := s.open(key, b, &x)
	if err != nil {
		return "", x, err
	}
	now := s.cfg.Now()
	// The store forgets them in time; these hold if its clock does not.
	if !found || now.Sub(x.Began) >= s.cfg.Absolute || now.Sub(x.Seen) >= s.cfg.Idle+touchEvery {
		return "", x, ErrNobody
	}
	return c.Value, x, nil
}

// rename gives a session a new cookie; the old one serves the requests that are
// under way with it for half a minute.
func (s *SignIn) rename(ctx context.Context, w http.ResponseWriter, cookie string, x session) error {
	now := s.cfg.Now()
	x.Passed = true
	if err := s.renew(ctx, cookie, x, renameGrace); err != nil {
		return err
	}
	x.Passed, x.Seen, x.Named = false, now, now
	id := rand.Text() + rand.Text()
	if err := s.put(ctx, "session", id, x, s.ttl(x)); err != nil {
		return err
	}
	s.setCookie(w, s.cookie, id, x.Began.Add(s.cfg.Absolute).Sub(now))
	return nil
}

// renew writes a session only while it is there: one that was ended meanwhile stays ended.
func (s *SignIn) renew(ctx context.Context, cookie string, x session, ttl time.Duration) error {
	b, err := json.Marshal(x)
	if err != nil {
		return err
	}
	key := s.key("session", cookie)
	there, err := s.cfg.Store.Renew(ctx, key, s.seal(key, b), ttl)
	if err == nil && !there {
		err = ErrNobody
	}
	return err
}

// person works out what a session allows at this instant.
func (s *SignIn) person(x session) (*Person, error) {
	p := &Person{Actor: registry.Actor{Name: x.Name}, Ends: x.Began.Add(s.cfg.Absolute)}
	for _, word := range x.Staff {
		if one, ok := registry.ParsePermission(word); ok {
			p.Actor.Permissions |= one
		}
	}
	if p.Actor.Staff() {
		return p, nil // an official is no developer at the same time
	}
	book, err := s.cfg.Casebook()
	if err != nil {
		return nil, err
	}
	for _, abn := range x.Entities {
		if !people.Acts(book, x.Name, abn) {
			continue
		}
		p.Entities = append(p.Entities, abn)
		if p.Actor.Entity == 0 || abn == x.Entity {
			p.Actor.Entity, p.Actor.Permissions = abn, registry.PermDeveloper
		}
	}
	return p, nil
}

// Choose makes a person act for another of its entities, and finds those that it
// has joined since it signed in.
func (s *SignIn) Choose(w http.ResponseWriter, r *http.Request, abn registry.ABN) error {
	cookie, x, err := s.current(r)
	if err != nil {
		return err
	}
	book, err := s.cfg.Casebook()
	if err != nil {
		return err
	}
	x.Entities, x.Entity, x.Seen = people.ActsFor(book, x.Name), abn, s.cfg.Now()
	// Who may not act for it does not: person looks at each request.
	return s.renew(r.Context(), cookie, x, s.ttl(x))
}

// End signs out.
func (s *SignIn) End(w http.ResponseWriter, r *http.Request) error {
	cookie, x, err := s.current(r)
	s.setCookie(w, s.cookie, "", -1)
	if err != nil {
		return err
	}
	if err := s.cfg.Store.Delete(r.Context(), s.key("session", cookie)); err != nil {
		return err
	}
	return s.note(r.Context(), x.Name, "sign-out")
}
