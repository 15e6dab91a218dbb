package translog

import (
	"context"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/dspgate/dspgate/registry"
)

// State is all of the log but its leaves.
type State struct {
	Size int64     `json:"size"` // leaves
	Root tlog.Hash `json:"root"`
	// Revision is that of the register's last change that has its leaf.
	Revision registry.Revision `json:"revision"`
	// Append names the append that made this state: two control planes may append
	// equal leaves to one tree at once, and only one of them has.
	Append string `json:"append,omitempty"`
	// Checkpoint is the signed note of Size and Root; empty for the empty log.
	Checkpoint []byte `json:"checkpoint,omitempty"`
}

// Same tells whether two states are of the same tree, made by the same append.
func (s State) Same(o State) bool {
	return s.Size == o.Size && (s.Size == 0 || s.Root == o.Root) && s.Revision == o.Revision && s.Append == o.Append
}

// Store keeps the leaves and the tree's stored hashes. redisstore implements
// it in the register's own Redis; translogtest in memory.
//
// What a Store says is not believed: a Log checks what it reads against the
// signed checkpoint.
type Store interface {
	// State reads the state; the zero State of an empty store.
	State(ctx context.Context) (State, error)
	// Append adds leaves, and the hashes to store with them (those at
	// tlog.StoredHashIndex(0, at.Size) and on), in one atomic step, if the store's
	// state still is the same as at. registry.ErrConflict when it is not;
	// ErrNotDurable when appended on fewer replicas than asked for; ErrUncertain
	// when the outcome is unknown.
	Append(ctx context.Context, at, next State, leaves [][]byte, hashes []tlog.Hash) error
	// Hashes reads stored hashes by their index.
	Hashes(ctx context.Context, indexes []int64) ([]tlog.Hash, error)
	// Leaves reads at most max leaves from an index on.
	Leaves(ctx context.Context, from int64, max int) ([][]byte, error)
}
