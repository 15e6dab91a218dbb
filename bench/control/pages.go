package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/dspgate/dspgate/bench/report"
	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/redisstore"
)

// page is one address, as somebody reads it. %d is another number each time.
type page struct {
	as, path string
	whole    bool // a file of all there is, or more than a listing: reported, and held to nothing
}

// noted tells whether reading the page is put on record before it is answered, since
// it holds contacts: its round trip is one that writes, to the disk and back.
func (p *page) noted() bool { return strings.Contains(p.path, "/entities") }

// pages of the API, by who reads them.
func apiPages(o options) []page {
	some := abn(1 + o.entities/3).String()
	return []page{
		{registrarName, "/v1/products?limit=100&page=%d", false},
		{registrarName, "/v1/products?state=Interim&limit=20&page=%d", false},
		{registrarName, "/v1/products?state=Draft", false},
		{registrarName, "/v1/products?owner=" + some, false},
		{registrarName, "/v1/products?entity=" + some, false},
		{registrarName, "/v1/products?q=banksia+tax&page=%d", false},
		{registrarName, "/v1/products?q=BN-0%d", false},
		{registrarName, "/v1/entities?limit=100&page=%d", false},
		{registrarName, "/v1/entities?state=Registered&page=%d", false},
		{registrarName, "/v1/entities?name=quoll&page=%d", false},
		{registrarName, "/v1/entities?name=nobody-is-called-so", false},
		{registrarName, "/v1/client-apps?limit=100&page=%d", false},
		{registrarName, "/v1/client-apps?product_id=BN-0%05d", false},
		{registrarName, "/v1/client-apps?owner=" + some, false},
		{registrarName, "/v1/client-apps?environment=PROD&page=%d", false},
		{registrarName, "/v1/subscriptions?product_id=BN-0%05d", false},
		{registrarName, "/v1/certifications?page=%d", false},
		{registrarName, "/v1/products/BN-0%05d", false},
		{registrarName, "/v1/overview", false},
		{developerName, "/v1/me", true},
		{developerName, "/v1/products", false},
		{developerName, "/v1/client-apps", false},
		{developerName, "/v1/subscriptions", false},
		{developerName, "/v1/entities", false},
		{developerName, "/v1/products?state=Interim", false},
	}
}

// publicPages need no sign-in; they are read once products are whitelisted.
func publicPages() []page {
	return []page{
		{"", "/v1/register?limit=100&page=%d", false},
		{"", "/v1/register?q=banksia+tax&page=%d", false},
		{"", "/v1/register?q=nothing-is-called-so", false},
		{"", "/v1/register?product_id=BN-0%05d", false},
		{"", "/register?page=%d", false},
		{"", "/register?q=quoll&page=%d", false},
		{"", "/v1/register.atom", false},
		{"", "/v1/register.csv", true},
	}
}

func consolePages() []page {
	return []page{
		{registrarName, "/console/", false},
		{registrarName, "/console/entities?page=%d", false},
		{registrarName, "/console/entities?name=quoll&page=%d", false},
		{registrarName, "/console/products?page=%d", false},
		{registrarName, "/console/products?state=Interim&page=%d", false},
		{registrarName, "/console/products/BN-0%05d", false},
		{registrarName, "/console/suspensions", false},
	}
}

// measureAll reads every page on a control plane that writes, on one that only
// reads, and, the register being public, without sign-in.
func measureAll(ctx context.Context, s *site, o options, rep *report.Report) error {
	writer := s.planes[0]
	person, err := s.person(ctx, writer, registrarName)
	if err != nil {
		return err
	}
	worst := 0.0
	measure := func(p *plane, pages []page, who *reader) error {
		ratio, err := s.measure(ctx, p, who, pages, o, rep)
		worst = max(worst, ratio)
		return err
	}
	if err := errors.Join(measure(writer, apiPages(o), nil), measure(writer, consolePages(), person)); err != nil {
		return err
	}
	other, err := s.startPlane(ctx, "control-2")
	if err != nil {
		return err
	}
	if person, err = s.person(ctx, other, registrarName); err != nil {
		return err
	}
	if err := errors.Join(measure(other, apiPages(o), nil), measure(other, consolePages(), person)); err != nil {
		return err
	}
	if rep.Figures["rss_reader_mb"], err = rss(other.PID()); err != nil {
		return err
	}
	if rep.Figures["rss_mb"], err = rss(writer.PID()); err != nil {
		return err
	}
	if err := s.whitelistAll(ctx); err != nil {
		return err
	}
	if err := measure(writer, publicPages(), s.program("")); err != nil {
		return err
	}
	after, err := rss(writer.PID())
	rep.Figures["rss_mb"], rep.Figures["p99_ratio"] = max(rep.Figures["rss_mb"], after), worst
	return err
}

// rounds is in how many turns the readings of a page are made, every other page
// in between: what else the machine does for a second hits all pages alike.
const rounds = 10

// samples are the readings of one page, and the round trip to Redis before each.
type samples struct{ trips, reads []time.Duration }

// measure reads every page o.pages times, in rounds, as one reader or, where that
// is nil, as whom each page names. The worst ratio of a listing comes back.
func (s *site) measure(ctx context.Context, p *plane, who *reader, pages []page, o options, rep *report.Report) (worst float64, err error) {
	readers, got := map[string]*reader{}, make([]samples, len(pages))
	for range rounds {
		for i, pg := range pages {
			r := who
			if r == nil {
				if readers[pg.as] == nil {
					readers[pg.as] = s.program(pg.as)
				}
				r = readers[pg.as]
			}
			if err := s.sample(ctx, p, r, pg, o.pages/rounds, &got[i]); err != nil {
				return 0, err
			}
		}
	}
	for i, pg := range pages {
		if ratio := got[i].report(p, pg, rep); !pg.whole {
			worst = max(worst, ratio)
		}
	}
	return worst, nil
}

// sample reads one page n times, each after a round trip to Redis.
func (s *site) sample(ctx context.Context, p *plane, r *reader, pg page, n int, to *samples) (err error) {
	if pg.whole {
		n = 1
	}
	rdb := s.redis.Client()
	const warm = 1
	for i := range n + warm {
		path := pg.path
		if strings.Contains(path, "%") {
			path = fmt.Sprintf(strings.ReplaceAll(path, "%2", "%%2"), 1+(len(to.reads)+i)*7%500)
		}
		began := time.Now()
		if pg.noted() {
			err = rdb.Set(ctx, "bench:something", "a reading that is put on record", 0).Err()
		} else if err = rdb.Get(ctx, "bench:nothing").Err(); errors.Is(err, redis.Nil) {
			err = nil
		}
		if err != nil {
			return err
		}
		trip := time.Since(began)
		began = time.Now()
		if _, err := r.get(ctx, p.url+path); err != nil {
			return err
		}
		if i >= warm {
			to.trips, to.reads = append(to.trips, trip), append(to.reads, time.Since(began))
		}
	}
	return nil
}

func (x *samples) report(p *plane, pg page, rep *report.Report) (ratio float64) {
	slices.Sort(x.trips)
	slices.Sort(x.reads)
	us := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1000 }
	at := func(all []time.Duration, part float64) float64 { return us(all[int(part*float64(len(all)-1))]) }
	as, _, _ := strings.Cut(pg.as, "@")
	if as == "" {
		as = "anybody"
	}
	ratio = at(x.reads, .99) / at(x.trips, .99)
	rep.Row(map[string]any{
		"plane": p.id, "as": as, "page": pg.path, "p50_us": at(x.reads, .5), "p99_us": at(x.reads, .99), "redis_p50_us": at(x.trips, .5), "redis_p99_us": at(x.trips, .99),
		"p50_ratio": at(x.reads, .5) / at(x.trips, .5), "p99_ratio": ratio,
	})
	return ratio
}

// whitelistAll whitelists every product, as approving each would, so that the
// public register shows them: this program takes the writer's claim for a moment.
func (s *site) whitelistAll(ctx context.Context) error {
	writer := s.planes[0]
	for _, p := range s.planes {
		p.Stop(10 * time.Second)
	}
	s.planes = s.planes[:1]
	if err := s.rewrite(ctx, func(p *registry.Product) { p.Certification.State = registry.CertWhitelisted }); err != nil {
		return err
	}
	if err := writer.Restart(); err != nil {
		return err
	}
	if err := s.awaitReady(ctx, writer, true); err != nil {
		return err
	}
	resp, err := http.Get(writer.url + "/v1/register?limit=1")
	if err == nil {
		err = resp.Body.Close()
	}
	return err
}

// rewrite changes every product of the register, which no control plane serves now.
func (s *site) rewrite(ctx context.Context, change func(*registry.Product)) error {
	secret, err := os.ReadFile(s.path("register.key"))
	if err != nil {
		return err
	}
	seal, err := registry.NewSealer(secret)
	if err != nil {
		return err
	}
	store, err := redisstore.Open(ctx, redisstore.Config{Addrs: []string{s.redis.Addr}}, nil)
	if err != nil {
		return err
	}
	defer store.Close()
	mirror := registry.NewMirror(store, seal, registry.MirrorConfig{ID: "bench", Observer: true})
	register := registry.NewRegister(store, mirror, seal, registry.RegisterConfig{Holder: "bench", ClaimTTL: 2 * time.Second})
	run, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	for _, f := range []func(context.Context) error{mirror.Run, register.Run} {
		running.Go(func() { _ = f(run) }) // what failed shows in what is read below
	}
	defer running.Wait()
	defer cancel()
	for !register.Writing() || mirror.View() == nil {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
	var records []any
	for _, e := range mirror.View().Products() {
		p := e.Value
		change(&p)
		records = append(records, p)
	}
	_, err = register.Import(ctx, registry.Actor{Name: "bench", Permissions: registry.PermRegistrar | registry.PermAssessor}, records, registry.Meta{Reason: "bench"})
	return err
}
