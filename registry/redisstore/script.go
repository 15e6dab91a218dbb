package redisstore

import (
	"context"
	"crypto/sha1"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/redis/go-redis/v9"
)

var (
	//go:embed commit.lua
	commitLua string
	//go:embed follow.lua
	followLua string
	//go:embed lead.lua
	leadLua string
	//go:embed leave.lua
	leaveLua string
	//go:embed roll.lua
	rollLua string
	//go:embed settle.lua
	settleLua string
	//go:embed reassert.lua
	reassertLua string
)

type script struct{ source, sha string }

func newScript(source string) script {
	sum := sha1.Sum([]byte(source)) // EVALSHA's name for it, no signature
	return script{source, hex.EncodeToString(sum[:])}
}

// prepareScripts fits the scripts to the version. Redis 7 lets a script say
// that it may write when memory is full: polls, which overwrite a few bytes,
// and the claim say so, lest a full Redis silence the whole fleet; commits do
// not, and are refused whole.
func (s *Store) prepareScripts() {
	always := ""
	if s.version >= version(7, 0) {
		always = "#!lua flags=allow-oom\n"
	}
	s.commit = newScript(commitLua)
	s.follow, s.lead = newScript(always+followLua), newScript(always+leadLua)
	s.leave, s.roll, s.settle = newScript(always+leaveLua), newScript(always+rollLua), newScript(always+settleLua)
	s.reassert = newScript(reassertLua)
}

// client is the node that holds the register's slot.
func (s *Store) client(ctx context.Context) (redis.Cmdable, error) {
	if c, ok := s.rdb.(*redis.ClusterClient); ok {
		return c.MasterForKey(ctx, s.keyHead)
	}
	return s.rdb, nil
}

// run runs a script by its name, and by its text when the server does not have
// it yet. With durable it then waits, on the same connection, for the replicas,
// and returns how many have all that was written.
func (s *Store) run(ctx context.Context, sc *script, keys []string, args []any, durable bool) (val any, replicas int, err error) {
	val, replicas, err = s.runOnce(ctx, sc, keys, args, durable, false)
	if err != nil && redis.HasErrorPrefix(err, "NOSCRIPT") {
		val, replicas, err = s.runOnce(ctx, sc, keys, args, durable, true)
	}
	return val, replicas, err
}

func (s *Store) runOnce(ctx context.Context, sc *script, keys []string, args []any, durable, whole bool) (any, int, error) {
	client, err := s.client(ctx)
	if err != nil {
		return nil, 0, err
	}
	eval := func(c redis.Cmdable) *redis.Cmd {
		if whole {
			return c.Eval(ctx, sc.source, keys, args...)
		}
		return c.EvalSha(ctx, sc.sha, keys, args...)
	}
	// Before 7.0 min-replicas-to-write does not bind scripts. A plain write in the
	// same transaction is refused, and the script with it.
	guard := s.version < version(7, 0)
	if !guard && !durable {
		val, err := eval(client).Result()
		return val, 0, err
	}
	var cmd *redis.Cmd
	var wait *redis.Cmd
	fill := func(p redis.Pipeliner) error {
		if guard {
			p.Do(ctx, "MULTI")
			p.Set(ctx, s.keyGuard, "", 0)
		}
		cmd = eval(p)
		if guard {
			cmd = p.Do(ctx, "EXEC")
		}
		if durable {
			ms := s.cfg.ReplicaTimeout.Milliseconds()
			if s.version >= version(7, 2) {
				local := 0
				if s.localAOF {
					local = 1
				}
				wait = p.Do(ctx, "WAITAOF", local, s.cfg.Replicas, ms)
			} else {
				wait = p.Do(ctx, "WAIT", s.cfg.Replicas, ms)
			}
		}
		return nil
	}
	cmds, perr := client.Pipelined(ctx, fill)
	val, err := cmd.Result()
	if guard && err != nil {
		// EXECABORT hides which of the commands was refused, and why.
		for _, c := range cmds {
			if cerr := c.Err(); cerr != nil && c != redis.Cmder(cmd) && c != redis.Cmder(wait) {
				err = cerr
				break
			}
		}
	}
	if err != nil {
		return nil, 0, err
	}
	if guard {
		list, ok := val.([]any)
		if !ok || len(list) != 2 {
			return nil, 0, errors.New("unexpected reply to EXEC")
		}
		if scriptErr, ok := list[1].(error); ok {
			return nil, 0, scriptErr
		}
		val = list[1]
	}
	if !durable {
		return val, 0, nil
	}
	replicas, err := s.replicas(wait)
	if err != nil {
		// The script was answered: the change is in, only its replicas are unknown.
		s.log.WarnContext(ctx, "replicas not confirmed", "err", errors.Join(err, perr))
	}
	return val, replicas, nil
}

func (s *Store) replicas(wait *redis.Cmd) (int, error) {
	val, err := wait.Result()
	switch v := val.(type) {
	case int64: // WAIT
		return int(v), err
	case []any: // WAITAOF: whether the primary's disk has it, and how many replicas' disks
		if len(v) == 2 {
			local, _ := v[0].(int64)
			n, _ := v[1].(int64)
			if s.localAOF && local == 0 {
				return 0, errors.New("not on the primary's own disk")
			}
			return int(n), err
		}
	}
	return 0, errors.Join(err, fmt.Errorf("unexpected reply to %s", strings.ToUpper(wait.Name())))
}
