// Command control measures a real control plane with 20,000 entities and 100,000
// products in it: a real Redis that writes its append-only file before every
// answer, the real `dspgate import`, and every listing, filter and search of the
// API and the console as a registrar, a developer and nobody in particular.
//
// A page is held against the Redis round trip of the same run, made before each
// reading of it over a kept connection of the same sort: a GET, or, for pages whose reading
// is put on record before it is answered, a SET. What is reported is the ratio of
// the 99th percentiles, and of the medians.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/dspgate/dspgate/bench/report"
	"github.com/dspgate/dspgate/chaos/world"
)

type options struct {
	products, entities, pages int

	kill    bool
	dspgate string
	out     string
}

func main() {
	var o options
	flag.IntVar(&o.products, "products", 100_000, "products to import")
	flag.IntVar(&o.entities, "entities", 20_000, "entities that own them")
	flag.IntVar(&o.pages, "pages", 400, "how often each page is read")
	flag.BoolVar(&o.kill, "kill", true, "first import with a kill -9 of the control plane in the middle")
	flag.StringVar(&o.dspgate, "dspgate", "bin/dspgate", "the binary to measure")
	flag.StringVar(&o.out, "out", "bench/out", "folder for control.json")
	flag.Parse()
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench-control:", err)
		os.Exit(1)
	}
}

// The figures asked for.
const (
	importSecondsMax = 60
	rssMax           = 500 // MB
	ratioMax         = 10
)

func run(ctx context.Context, o options) error {
	if o.entities < 1 || o.products < o.entities || o.pages < 10 {
		return errors.New("needs an entity, a product for each, and 10 readings of each page")
	}
	ctx, cancel := context.WithTimeout(ctx, 15*time.Minute)
	defer cancel()
	dir, err := os.MkdirTemp("", "bench-control-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if o.dspgate, err = filepath.Abs(o.dspgate); err != nil {
		return err
	}
	rep := report.New()
	file := filepath.Join(dir, "register.csv")
	if err := writeRegister(file, o); err != nil {
		return err
	}
	if o.kill {
		if err := importKilled(ctx, dir, file, o, rep); err != nil {
			return err
		}
	}
	s, err := newSite(ctx, filepath.Join(dir, "site"), o)
	if err != nil {
		return err
	}
	defer s.close()
	if err := importAll(ctx, s, file, o, rep); err != nil {
		return err
	}
	if err := measureAll(ctx, s, o, rep); err != nil {
		return err
	}
	rep.Figures["products"], rep.Figures["entities"] = float64(o.products), float64(o.entities)
	if err := rep.Save(o.out, "control"); err != nil {
		return err
	}
	if err := rep.Table(os.Stdout, "plane", "as", "page", "p50_us", "p99_us", "redis_p50_us", "redis_p99_us", "p50_ratio", "p99_ratio"); err != nil {
		return err
	}
	return verdict(rep)
}

// verdict says which figures are beyond what is asked.
func verdict(rep *report.Report) error {
	var over []string
	for name, most := range map[string]float64{
		"import_seconds": importSecondsMax, "rss_mb": rssMax, "import_rss_mb": rssMax, "p99_ratio": ratioMax,
	} {
		if rep.Figures[name] > most {
			over = append(over, fmt.Sprintf("%s is %.4g, above %v", name, rep.Figures[name], most))
		}
	}
	if len(over) > 0 {
		return fmt.Errorf("%v", over)
	}
	return nil
}

// redisServer is the Redis of a site.
type redisServer = world.Server
