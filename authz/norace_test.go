//go:build !race

package authz_test

// raceEnabled tells whether the race detector is on, under which a flood of ten
// million takes minutes and shows nothing more, and pools allocate.
const raceEnabled = false
