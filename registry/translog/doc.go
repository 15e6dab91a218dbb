// Package translog is the tamper-evident log of every change of the register
// and of every reading of personal data.
//
// It is a Merkle tree (RFC 6962, computed by golang.org/x/mod/sumdb/tlog) over
// leaves that are only ever appended. After each append the tree's size and root
// are signed as a checkpoint (C2SP tlog-checkpoint over a signed note). Whoever
// kept a checkpoint can prove later that a leaf was in the log when it was made
// (inclusion), and that the log of today extends it (consistency). Witnesses
// cosign checkpoints that are consistent with all they saw before, so that two
// readers cannot be shown two logs, and the log's own key, stolen, rewrites
// nothing that was seen before.
//
// Invariants:
//
//   - A change is acknowledged after its leaf is stored, never before. One that
//     was committed by a control plane that then died gets its leaf from the next
//     writer, in the order of revisions, exactly once (State.Revision).
//   - A Store applies an Append whole or not at all, and only to exactly the tree
//     that it was computed on. So there is one tree, whoever appends.
//   - A Log never signs a tree that does not extend every tree it has signed or
//     seen, over restarts too (Config.StateFile).
//   - Leaves hold who, what, when and of which record, and a keyed seal of the
//     content; never the content: no TFN, no eligibility outcome, no reason given.
package translog
