package main

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"
)

func small(seed uint64) options {
	return options{seed: seed, attackSeed: 5, products: 9, sidecars: 2, lead: 17, days: 8, attacks: 1, begin: time.Date(2026, 8, 2, 0, 0, 0, 0, time.UTC)}
}

// A short life of a small world: every attack is told in time, nobody else is
// accused, and nobody is suspended for nothing.
func TestAttacksAreToldAndOthersLeftAlone(t *testing.T) {
	x, err := newRun(small(3), 5)
	if err != nil {
		t.Fatal(err)
	}
	out := x.live(func(int) bool { return true })
	if out.Calls < 20_000 || out.Months < 1.5 || len(out.Attacks) != int(shapes) {
		t.Fatalf("%d calls, %.1f product-months, %d attacks: not the world meant", out.Calls, out.Months, len(out.Attacks))
	}
	for _, a := range out.Attacks {
		switch after := a.told - a.start; {
		case a.shape == fraudulentNewcomer:
			// So small a fleet does not say what is usual.
		case a.told == 0:
			t.Errorf("%s on %s was never told", a.shape, a.victim.id)
		case a.shape.loud() && after > 60:
			t.Errorf("%s on %s was told after %d s", a.shape, a.victim.id, after)
		case a.shape == slowEnumeration && a.n > 200:
			t.Errorf("%s took %d people to be told", a.shape, a.n)
		}
	}
	if out.FalseCases > 0 || out.Suspended > 0 {
		t.Errorf("%d false alarms, %d false suspensions: %q", out.FalseCases, out.Suspended, out.False)
	}
}

// The parameters' hash is printed first, and gives the attacks' seed.
func TestParametersAreCommittedBeforeTheAttacks(t *testing.T) {
	o := small(1)
	o.products, o.lead, o.days, o.attackSeed = 3, 0, 8, 0
	var out bytes.Buffer
	if err := measure(t.Context(), o, &out); err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitN(out.String(), "\n", 3)
	if lines[0] != "parameters "+fingerprint() || !strings.HasPrefix(lines[1], fmt.Sprintf("drawn from them: -seed 1 -attack-seed %d ", drawn("attacks", 0))) {
		t.Errorf("began with %q", lines[:2])
	}
}

func TestASeedGivesTheSameRunAgain(t *testing.T) {
	var told [2]string
	for i := range told {
		o := small(2)
		o.products, o.lead, o.days, o.attacks = 2, 0, 8, 0
		x, err := newRun(o, 9)
		if err != nil {
			t.Fatal(err)
		}
		out := x.live(func(int) bool { return true })
		told[i] = fmt.Sprint(out.Calls, out.Signals, out.False)
	}
	if told[0] != told[1] {
		t.Errorf("one seed gave\n%s\nand\n%s", told[0], told[1])
	}
}
