package translog_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	fnote "github.com/transparency-dev/formats/note"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/translog"
	"github.com/dspgate/dspgate/registry/translog/translogtest"
)

// export writes the whole log as `dspgate audit export` does.
func export(t testing.TB, l *translog.Log) []byte {
	t.Helper()
	signed, st, err := l.Checkpoint()
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := translog.WriteExport(&b, signed); err != nil {
		t.Fatal(err)
	}
	for n := int64(0); n < st.Size; {
		entries, err := l.Entries(context.Background(), n, 7)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if err := translog.WriteEntry(&b, e); err != nil {
				t.Fatal(err)
			}
		}
		n += int64(len(entries))
	}
	return b.Bytes()
}

func verifyAll(t testing.TB, l *translog.Log, k keys, earlier [][]byte) *translog.Report {
	t.Helper()
	rep, err := translog.Verify(bytes.NewReader(export(t, l)), translog.Check{Log: k.verifier, Earlier: earlier})
	if err != nil {
		t.Fatal(err)
	}
	return rep
}

func lines(b []byte) []string { return strings.Split(strings.TrimSuffix(string(b), "\n"), "\n") }

// TestC07EntriesChanged: an entry deleted, edited, put in, reordered, or the
// tail cut off, by somebody without the key, is found offline.
func TestC07EntriesChanged(t *testing.T) {
	store, k := &translogtest.Memory{}, newKeys(t, origin)
	l, _ := start(t, store, k)
	for rev := registry.Revision(1); rev <= 9; rev++ {
		if err := l.Record(t.Context(), rev-1, []*registry.Change{change(rev)}); err != nil {
			t.Fatal(err)
		}
		if err := l.Append(t.Context(), read(fmt.Sprint("entity/", rev))); err != nil {
			t.Fatal(err)
		}
	}
	whole := export(t, l)
	if _, err := translog.Verify(bytes.NewReader(whole), translog.Check{Log: k.verifier}); err != nil {
		t.Fatal(err)
	}
	renumber := func(all []string) []string { // what a careful forger does too
		for i := 1; i < len(all); i++ {
			_, rest, _ := strings.Cut(all[i], ",")
			all[i] = fmt.Sprintf(`{"index":%d,%s`, i-1, rest)
		}
		return all
	}
	for name, c := range map[string]struct {
		forge func(all []string) []string
		want  error
	}{
		"deleted":           {func(all []string) []string { return slices.Delete(all, 4, 5) }, translog.ErrEntries},
		"deleted, numbered": {func(all []string) []string { return renumber(slices.Delete(all, 4, 5)) }, translog.ErrTruncated},
		"edited":            {func(all []string) []string { all[4] = strings.Replace(all[4], "entity/2", "entity/9", 1); return all }, translog.ErrEntries},
		"actor edited": {func(all []string) []string {
			all[3] = strings.Replace(all[3], "operator@", "operator2@", 1)
			return all
		}, translog.ErrEntries},
		"reordered":          {func(all []string) []string { all[2], all[4] = all[4], all[2]; return renumber(all) }, translog.ErrEntries},
		"changes reordered":  {func(all []string) []string { all[1], all[3] = all[3], all[1]; return renumber(all) }, translog.ErrOrder},
		"put in":             {func(all []string) []string { return renumber(slices.Insert(all, 2, all[2])) }, translog.ErrEntries},
		"tail cut off":       {func(all []string) []string { return all[:len(all)-2] }, translog.ErrTruncated},
		"everything cut off": {func(all []string) []string { return all[:1] }, translog.ErrTruncated},
		"checkpoint edited": {func(all []string) []string {
			all[0] = strings.Replace(all[0], `\n18\n`, `\n17\n`, 1)
			return all[:len(all)-1]
		}, translog.ErrSignature},
	} {
		t.Run(name, func(t *testing.T) {
			forged := strings.Join(c.forge(lines(whole)), "\n") + "\n"
			if forged == string(whole) {
				t.Fatal("nothing was forged")
			}
			_, err := translog.Verify(strings.NewReader(forged), translog.Check{Log: k.verifier})
			if !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

// TestC07StoreChanged: the same done to the store of a running log: what is
// asked for is not proved, and the export does not verify.
func TestC07StoreChanged(t *testing.T) {
	store, k := &translogtest.Memory{}, newKeys(t, origin)
	l, _ := start(t, store, k)
	appendN(t, l, 12)
	c := store.Contents()
	c.Leaves[5] = bytes.Replace(c.Leaves[5], []byte("auditor@"), []byte("nobody@"), 1)
	store.Put(c)
	if _, _, _, err := l.ProveLeaf(t.Context(), 5); !errors.Is(err, registry.ErrTampered) {
		t.Errorf("a changed leaf: %v", err)
	}
	if _, _, _, err := l.ProveLeaf(t.Context(), 6); err != nil {
		t.Errorf("its neighbour: %v", err)
	}
	if _, err := translog.Verify(bytes.NewReader(export(t, l)), translog.Check{Log: k.verifier}); !errors.Is(err, translog.ErrEntries) {
		t.Errorf("the export: %v", err)
	}
	c.Hashes[tlog.StoredHashIndex(0, 5)] = tlog.RecordHash(c.Leaves[5])
	store.Put(c)
	if _, _, _, err := l.ProveLeaf(t.Context(), 4); !errors.Is(err, registry.ErrTampered) {
		t.Errorf("a changed hash: %v", err)
	}
}

// TestC07TailCutOffAndSignedAgain: the last entries are removed and the shorter
// log is shown with its own, genuine, earlier checkpoint. Only somebody who kept
// a later checkpoint, or a witness, can tell.
func TestC07TailCutOffAndSignedAgain(t *testing.T) {
	store, k := &translogtest.Memory{}, newKeys(t, origin)
	l, _ := start(t, store, k)
	appendN(t, l, 5)
	shorter := export(t, l)
	appendN(t, l, 2)
	kept, _, err := l.Checkpoint()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := translog.Verify(bytes.NewReader(shorter), translog.Check{Log: k.verifier}); err != nil {
		t.Fatalf("in itself it is sound: %v", err)
	}
	if _, err := translog.Verify(bytes.NewReader(shorter), translog.Check{Log: k.verifier, Earlier: [][]byte{kept}}); !errors.Is(err, translog.ErrTruncated) {
		t.Errorf("got %v", err)
	}
}

// localWitness is a Witness without the network between.
type localWitness struct {
	*translog.Witness
	v note.Verifier
}

func (w localWitness) AddCheckpoint(_ context.Context, old int64, p tlog.TreeProof, c []byte) ([]byte, error) {
	return w.Witness.AddCheckpoint(old, p, c)
}
func (w localWitness) Verifier() note.Verifier { return w.v }

func newWitness(t testing.TB, log note.Verifier) localWitness {
	t.Helper()
	skey, vkey, err := note.GenerateKey(nil, "witness.example")
	if err != nil {
		t.Fatal(err)
	}
	s, err := fnote.NewSignerForCosignatureV1(skey)
	if err != nil {
		t.Fatal(err)
	}
	v, err := fnote.NewVerifierForCosignatureV1(vkey)
	if err != nil {
		t.Fatal(err)
	}
	return localWitness{translog.NewWitness(log, s, filepath.Join(t.TempDir(), "witness.state")), v}
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("never came: %s", what)
}

func cosignedSize(t testing.TB, l *translog.Log, k keys) int64 {
	b := l.Cosigned()
	if b == nil {
		return 0
	}
	tree, err := translog.OpenCheckpoint(b, k.verifier)
	if err != nil {
		t.Fatal(err)
	}
	return tree.N
}

// TestC07Forked: the log's owner, with the key, shows two readers two logs.
// Each is sound in itself; the witness cosigns one of them only.
func TestC07Forked(t *testing.T) {
	k := newKeys(t, origin)
	w := newWitness(t, k.verifier)
	store := &translogtest.Memory{}
	l, stop := start(t, store, k, func(c *translog.Config) { c.Witnesses = []translog.RemoteWitness{w} })
	appendN(t, l, 5)
	common := store.Contents()
	appendN(t, l, 3)
	eventually(t, "the checkpoint is cosigned", func() bool { return cosignedSize(t, l, k) == 8 })
	honest := l.Cosigned()
	stop()

	forkStore := &translogtest.Memory{}
	forkStore.Put(common)
	fork, _ := start(t, forkStore, k)
	if err := fork.Append(t.Context(), read("entity/another"), read("entity/history"), read("entity/altogether"), read("entity/longer")); err != nil {
		t.Fatal(err)
	}
	forged := export(t, fork)
	if _, err := translog.Verify(bytes.NewReader(forged), translog.Check{Log: k.verifier}); err != nil {
		t.Fatalf("in itself it is sound: %v", err)
	}
	if _, err := translog.Verify(bytes.NewReader(forged), translog.Check{Log: k.verifier, Witnesses: []note.Verifier{w.v}}); !errors.Is(err, translog.ErrUnwitness) {
		t.Errorf("without a cosignature: %v", err)
	}
	if _, err := translog.Verify(bytes.NewReader(forged), translog.Check{Log: k.verifier, Earlier: [][]byte{honest}, Witnesses: []note.Verifier{w.v}}); !errors.Is(err, translog.ErrRewritten) {
		t.Errorf("beside the other reader's checkpoint: %v", err)
	}
	// The witness itself cannot be led to the fork, whatever proof it is shown.
	signed, st, err := fork.Checkpoint()
	if err != nil {
		t.Fatal(err)
	}
	p, _, err := fork.ProveTree(t.Context(), 8)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Witness.AddCheckpoint(8, p, signed); !errors.Is(err, translog.ErrProof) {
		t.Errorf("the witness on the fork of %d: %v", st.Size, err)
	}
	var at *translog.WitnessSizeError
	if _, err := w.Witness.AddCheckpoint(5, nil, signed); !errors.As(err, &at) || at.Size != 8 {
		t.Errorf("the witness asked from another size: %v", err)
	}
}

// TestWitnessGoesOn: a log started again finds out where its witness is.
func TestWitnessGoesOn(t *testing.T) {
	k, store := newKeys(t, origin), &translogtest.Memory{}
	w := newWitness(t, k.verifier)
	with := func(c *translog.Config) { c.Witnesses = []translog.RemoteWitness{w} }
	l, stop := start(t, store, k, with)
	appendN(t, l, 3)
	eventually(t, "cosigned", func() bool { return cosignedSize(t, l, k) == 3 })
	stop()
	l, _ = start(t, store, k, with)
	appendN(t, l, 2)
	eventually(t, "cosigned again", func() bool { return cosignedSize(t, l, k) == 5 })
	rep, err := translog.Verify(bytes.NewReader(export(t, l)), translog.Check{Log: k.verifier, Earlier: [][]byte{l.Cosigned()}, Witnesses: []note.Verifier{w.v}})
	if err != nil || rep.Extended != 1 {
		t.Errorf("%+v, %v", rep, err)
	}
}

// TestC09StolenKey: whoever has the signing key and the store rewrites history
// from any point on and signs it afresh: no checkpoint from after that point
// agrees, however many entries follow.
func TestC09StolenKey(t *testing.T) {
	k, store := newKeys(t, origin), &translogtest.Memory{}
	l, _ := start(t, store, k)
	kept := map[int64][]byte{}
	for range 9 {
		appendN(t, l, 1)
		signed, st, err := l.Checkpoint()
		if err != nil {
			t.Fatal(err)
		}
		kept[st.Size] = signed
	}
	genuine := store.Contents()
	for from := range int64(9) {
		forgedStore := &translogtest.Memory{}
		thief, stop := start(t, forgedStore, k)
		for i, leaf := range genuine.Leaves {
			x, err := translog.ParseLeaf(leaf)
			if err != nil {
				t.Fatal(err)
			}
			if int64(i) == from {
				x.Actor = "somebody.else@agency.example"
			}
			if err := thief.Append(t.Context(), x); err != nil {
				t.Fatal(err)
			}
		}
		appendN(t, thief, 4)
		forged := export(t, thief)
		if _, err := translog.Verify(bytes.NewReader(forged), translog.Check{Log: k.verifier}); err != nil {
			t.Fatalf("its signature is genuine: %v", err)
		}
		for n, c := range kept {
			_, err := translog.Verify(bytes.NewReader(forged), translog.Check{Log: k.verifier, Earlier: [][]byte{c}})
			if n > from != errors.Is(err, translog.ErrRewritten) {
				t.Errorf("rewritten from %d, checkpoint of %d: %v", from, n, err)
			}
			// Nor does any proof the thief can make.
			old, err := translog.OpenCheckpoint(c, k.verifier)
			if err != nil {
				t.Fatal(err)
			}
			p, st, err := thief.ProveTree(t.Context(), n)
			if err != nil {
				t.Fatal(err)
			}
			if ok := tlog.CheckTree(p, st.Size, st.Root, old.N, old.Hash) == nil; ok != (n <= from) {
				t.Errorf("rewritten from %d: the proof from %d is accepted: %v", from, n, ok)
			}
		}
		stop()
	}
}

func FuzzVerify(f *testing.F) {
	store, k := &translogtest.Memory{}, newKeys(f, origin)
	l, _ := start(f, store, k)
	appendN(f, l, 4)
	whole := export(f, l)
	f.Add(whole)
	f.Add([]byte(`{"checkpoint":""}`))
	// Whatever verifies says exactly what was signed.
	f.Fuzz(func(t *testing.T, b []byte) {
		rep, err := translog.Verify(bytes.NewReader(b), translog.Check{Log: k.verifier})
		if err == nil && rep.Tree.N != 0 && !slices.Equal(leavesOf(lines(b)), leavesOf(lines(whole))) {
			t.Fatalf("forged: %s", b)
		}
	})
}

// leavesOf are the lines of an export as values, so that spelling does not count.
func leavesOf(all []string) (out []string) {
	for _, l := range all[1:] {
		var e struct {
			Index int64
			Leaf  string
		}
		if json.Unmarshal([]byte(l), &e) == nil {
			out = append(out, fmt.Sprint(e.Index, e.Leaf))
		}
	}
	return out
}
