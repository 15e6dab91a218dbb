package redisstore

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"strconv"

	"github.com/redis/go-redis/v9"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/translog"
)

//go:embed audit.lua
var auditLua string

// AuditStore is the audit log in the register's own Redis and slot, as durable
// as the register:
//
//	{dspgate}:audit         hash    size, root, rev, append, checkpoint
//	{dspgate}:audit:leaves  stream  entry "<index+1>-0", field l: the leaf
//	{dspgate}:audit:hashes  string  stored hash i at byte 32·i (at most 512 MB: 8 million leaves)
//
// An entry takes about 100 bytes more than its leaf.
type AuditStore struct {
	s                            *Store
	script                       script
	keyState, keyLeaf, keyHashes string
}

var _ translog.Store = (*AuditStore)(nil)

// Audit is the audit log's store beside the register.
func (s *Store) Audit() *AuditStore {
	p := "{" + s.cfg.Prefix + "}:audit"
	return &AuditStore{s: s, script: newScript(auditLua), keyState: p, keyLeaf: p + ":leaves", keyHashes: p + ":hashes"}
}

// State implements translog.Store.
func (a *AuditStore) State(ctx context.Context) (st translog.State, err error) {
	ctx, cancel := context.WithTimeout(ctx, a.s.cfg.Timeout)
	defer cancel()
	got, err := a.s.rdb.HMGet(ctx, a.keyState, "size", "root", "rev", "checkpoint", "append").Result()
	if err != nil {
		return st, fmt.Errorf("read the audit log's state: %w", classify(err, false))
	}
	text, err := stringsOf(any(got), 5)
	if err != nil || text[0] == "" {
		return st, err
	}
	size, serr := strconv.ParseInt(text[0], 10, 64)
	root, herr := tlog.ParseHash(text[1])
	rev, rerr := strconv.ParseUint(text[2], 10, 64)
	if err := errors.Join(serr, herr, rerr); err != nil {
		return st, fmt.Errorf("read the audit log's state: %w: %w", registry.ErrTampered, err)
	}
	return translog.State{Size: size, Root: root, Revision: registry.Revision(rev), Checkpoint: []byte(text[3]), Append: text[4]}, nil
}

// Append implements translog.Store.
func (a *AuditStore) Append(ctx context.Context, at, next translog.State, leaves [][]byte, hashes []tlog.Hash) error {
	root := ""
	if at.Size > 0 {
		root = at.Root.String()
	}
	fresh := make([]byte, 0, len(hashes)*tlog.HashSize)
	for i := range hashes {
		fresh = append(fresh, hashes[i][:]...)
	}
	args := []any{at.Size, root, uint64(at.Revision), at.Append, next.Size, next.Root.String(), uint64(next.Revision), next.Append, next.Checkpoint,
		tlog.StoredHashCount(at.Size), fresh}
	for _, l := range leaves {
		args = append(args, l)
	}
	ctx, cancel := context.WithTimeout(ctx, a.s.cfg.Timeout+a.s.replicaWait())
	defer cancel()
	val, replicas, err := a.s.run(ctx, &a.script, []string{a.keyState, a.keyLeaf, a.keyHashes}, args, a.s.cfg.Replicas > 0)
	if err != nil {
		return fmt.Errorf("append to the audit log: %w", classify(err, true))
	}
	reply, err := stringsOf(val, 2)
	switch {
	case err != nil:
		return fmt.Errorf("append to the audit log: %w: %w", registry.ErrUncertain, err)
	case reply[0] == "conflict":
		return fmt.Errorf("append to the audit log: %w: it has %s entries, not %d", registry.ErrConflict, reply[1], at.Size)
	case reply[0] == "tampered":
		return fmt.Errorf("append to the audit log: %w: %s bytes of stored hashes for %d entries", registry.ErrTampered, reply[1], at.Size)
	case replicas < a.s.cfg.Replicas:
		return fmt.Errorf("append to the audit log: %w: %d of %d", registry.ErrNotDurable, replicas, a.s.cfg.Replicas)
	}
	return nil
}

// Hashes implements translog.Store.
func (a *AuditStore) Hashes(ctx context.Context, indexes []int64) ([]tlog.Hash, error) {
	ctx, cancel := context.WithTimeout(ctx, a.s.cfg.Timeout)
	defer cancel()
	client, err := a.s.client(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the audit log's hashes: %w", classify(err, false))
	}
	cmds := make([]*redis.StringCmd, len(indexes))
	_, err = client.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, x := range indexes {
			cmds[i] = p.GetRange(ctx, a.keyHashes, x*tlog.HashSize, (x+1)*tlog.HashSize-1)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the audit log's hashes: %w", classify(err, false))
	}
	out := make([]tlog.Hash, len(indexes))
	for i, c := range cmds {
		if len(c.Val()) != tlog.HashSize {
			return nil, fmt.Errorf("%w: the audit log's stored hash %d is missing", registry.ErrTampered, indexes[i])
		}
		out[i] = tlog.Hash([]byte(c.Val()))
	}
	return out, nil
}

// Leaves implements translog.Store.
func (a *AuditStore) Leaves(ctx context.Context, from int64, most int) ([][]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, a.s.cfg.Timeout)
	defer cancel()
	got, err := a.s.rdb.XRangeN(ctx, a.keyLeaf, fmt.Sprintf("%d-0", from+1), "+", int64(most)).Result()
	if err != nil {
		return nil, fmt.Errorf("read the audit log: %w", classify(err, false))
	}
	var out [][]byte
	for i := range got {
		leaf, ok := got[i].Values["l"].(string)
		if want := fmt.Sprintf("%d-0", from+int64(i)+1); !ok || got[i].ID != want {
			return nil, fmt.Errorf("%w: the audit log's entry %d is missing", registry.ErrTampered, from+int64(i))
		}
		out = append(out, []byte(leaf))
	}
	return out, nil
}
