package redisstore_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"golang.org/x/mod/sumdb/note"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/redisstore"
	"github.com/dspgate/dspgate/registry/redisstore/redistest"
	"github.com/dspgate/dspgate/registry/translog"
	"github.com/dspgate/dspgate/registry/translog/translogtest"
)

func auditSuite(t *testing.T, cfg redisstore.Config) {
	var n atomic.Int64
	translogtest.Run(t, func(t *testing.T) translog.Store {
		cfg := cfg
		cfg.Prefix = fmt.Sprintf("audit-%d", n.Add(1))
		return open(t, cfg).Audit()
	})
}

func TestAuditInRedisPassesTheSuite(t *testing.T) {
	auditSuite(t, redisstore.Config{Addrs: []string{redistest.Start(t).Addr}})
}

func TestAuditInAClusterPassesTheSuite(t *testing.T) {
	auditSuite(t, redisstore.Config{Addrs: []string{redistest.StartCluster(t).Addr}, Cluster: true})
}

// startAudit runs an audit log beside a register until the test ends.
func startAudit(t testing.TB, s *redisstore.Store) *translog.Log {
	t.Helper()
	skey, vkey, err := note.GenerateKey(nil, "audit.example")
	if err != nil {
		t.Fatal(err)
	}
	signer, serr := note.NewSigner(skey)
	verifier, verr := note.NewVerifier(vkey)
	if err := errors.Join(serr, verr); err != nil {
		t.Fatal(err)
	}
	l, err := translog.New(s.Audit(), translog.Config{Signer: signer, Verifier: verifier})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-ended })
	return l
}

// TestAuditSurvivesKill: kill -9 of Redis in the midst of appends loses no leaf
// that was acknowledged, and the log goes on by itself when Redis is back.
func TestAuditSurvivesKill(t *testing.T) {
	server := redistest.Start(t)
	l := startAudit(t, open(t, redisstore.Config{Addrs: []string{server.Addr}}))
	add := func(what string) error {
		return l.Append(t.Context(), translog.Leaf{Kind: translog.KindRead, Actor: "auditor", Subjects: []string{what}})
	}
	acknowledged := int64(0)
	for round := range 3 {
		for i := range 20 {
			if err := add(fmt.Sprintf("entity/%d-%d", round, i)); err != nil {
				t.Fatal(err)
			}
			acknowledged++
		}
		server.Kill()
		if err := add("entity/away"); err == nil {
			t.Fatal("acknowledged with Redis away")
		}
		server.Restart()
		until(t, "Redis answers again", func() bool { return add("entity/back") == nil })
		acknowledged++
	}
	for i := range acknowledged {
		if _, _, _, err := l.ProveLeaf(t.Context(), i); err != nil {
			t.Fatalf("entry %d: %v", i, err)
		}
	}
	var back int
	for i := int64(0); ; {
		es, err := l.Entries(t.Context(), i, 100)
		if err != nil {
			t.Fatal(err)
		}
		if len(es) == 0 {
			break
		}
		for _, e := range es {
			leaf, err := translog.ParseLeaf(e.Leaf)
			if err != nil {
				t.Fatal(err)
			}
			if leaf.Subjects[0] == "entity/back" {
				back++
			}
		}
		i += int64(len(es))
	}
	if back < 3 {
		t.Errorf("%d of 3 leaves after the restarts", back)
	}
}

var _ registry.Journal = (*translog.Log)(nil)
