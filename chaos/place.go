package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/dspgate/dspgate/chaos/world"
)

// The serving leases and the pace of a world.
const (
	leaseShort = time.Second
	leaseLong  = 3 * time.Second
	claimTTL   = 1500 * time.Millisecond
	// startWithin and healMax are for a machine with much else to do: a trial
	// judges what was answered, never how soon.
	startWithin = 2 * time.Minute
	healMax     = 3 * time.Minute // a limit's standing part alone holds for 70 s
	healPlanted = 5 * time.Second // what is broken on purpose may never be well
)

func (o *settings) healWithin() time.Duration {
	if o.planted != "" {
		return healPlanted
	}
	return healMax
}

// place is a world with what its trials have in common. A nil place is closed.
type place struct {
	dir       string
	o         settings
	world     *world.World
	tokens    map[string]string // of each product
	clients   http.Client
	operators http.Client
	read      int64 // of the file of arrivals, by earlier trials
	failovers int   // seen by earlier trials
}

// open starts a world. Another process may have taken a port on the way: a
// world that does not start is given two more chances.
func open(ctx context.Context, o settings) (*place, error) {
	var all error
	for range 3 {
		p, err := openOnce(ctx, o)
		if err == nil {
			return p, nil
		}
		p.close()
		if all = errors.Join(all, err); ctx.Err() != nil {
			break
		}
	}
	return nil, fmt.Errorf("no world: %w", all)
}

func openOnce(ctx context.Context, o settings) (*place, error) {
	// A short path: sockets stand in it.
	dir, err := os.MkdirTemp("", "chaos-")
	if err != nil {
		return nil, err
	}
	p := &place{dir: dir, o: o, tokens: map[string]string{}}
	p.clients.Transport = &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true}
	p.operators.Transport = &http.Transport{DisableKeepAlives: true}
	ctx, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	options := world.Options{
		Dir: dir, Dspgate: o.dspgate, Replicas: 2, Controls: 2, EnvoyOf: []int{0, 0, 1},
		Short: leaseShort, Long: leaseLong, ClaimTTL: claimTTL, WithLinks: true,
	}
	if o.planted != "" {
		options.Env = []string{plantedEnv(o.planted)}
	}
	if !o.failovers {
		options.Replicas, options.Controls = 0, 1
	}
	if p.world, err = world.New(ctx, options); err != nil {
		return p, err
	}
	for id, claims := range map[string]map[string]any{
		"FP-1001": {"abn": "65000000101", "software_id": "0000123400", "client_abn": "56000001313"},
		"FP-1003": {"abn": "31000000202", "software_id": "0000300001", "client_abn": "56000001313"},
	} {
		if p.tokens[id], err = p.world.Token("fp-"+id[3:]+"-prod", claims); err != nil {
			return p, err
		}
	}
	return p, nil
}

func (p *place) close() {
	if p == nil {
		return
	}
	p.world.Close()
	p.clients.CloseIdleConnections()
	_ = os.RemoveAll(p.dir) // a leftover in the temporary folder
}

// newLines is what was appended to a log since earlier trials, up to the last
// whole line.
func (p *place) newLines(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if _, err := f.Seek(p.read, io.SeekStart); err != nil {
		return nil, err
	}
	b, err := io.ReadAll(f)
	if err != nil {
		return nil, err
	}
	b = b[:bytes.LastIndexByte(b, '\n')+1]
	p.read += int64(len(b))
	return b, nil
}

// newFailovers counts the promotions since earlier trials, as the Sentinel that
// saw most saw them.
func (p *place) newFailovers() int {
	all := 0
	for i := range p.world.Sentinels {
		if b, err := os.ReadFile(filepath.Join(p.dir, fmt.Sprintf("sentinel-%d.log", i+1))); err == nil {
			all = max(all, bytes.Count(b, []byte("+switch-master")))
		}
	}
	n := all - p.failovers
	p.failovers = all
	return n
}

// logs are the files that tell what the processes did.
func (p *place) logs() ([]string, error) {
	all, err := filepath.Glob(filepath.Join(p.dir, "*.log"))
	return append(all, p.world.Arrivals), err
}
