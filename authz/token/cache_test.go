package token

import (
	"strings"
	"testing"
	"time"
)

// Two strings with one hash must not be taken for each other: the hash is fast,
// not collision-resistant.
func TestCacheComparesTheWholeKey(t *testing.T) {
	c := newCache[int](64, 1<<20)
	now := time.Unix(1000, 0)
	one := 1
	c.put(7, "token", &one, 0, now.Add(time.Minute), now)
	if got := c.get(7, "token"); got == nil || *got != 1 {
		t.Errorf("get = %v, want 1", got)
	}
	if got := c.get(7, "tokem"); got != nil {
		t.Errorf("another key with the same hash got %d", *got)
	}
	two := 2
	c.put(7, "token", &two, 0, now.Add(time.Minute), now)
	if n, _ := c.size(); n != 1 || *c.get(7, "token") != 2 {
		t.Errorf("%d entries, %d; a key put twice takes one place", n, *c.get(7, "token"))
	}
}

func TestCacheEvictsWhatHasExpiredThenWhatIsCold(t *testing.T) {
	c := newCache[int](ways, 1<<20) // one set
	now := time.Unix(1000, 0)
	keys := []string{"a", "b", "c", "d", "e", "f", "g", "h"}
	for i, k := range keys {
		ends := time.Minute
		if k == "d" {
			ends = -time.Second
		}
		c.put(c.hash(k), k, &i, 0, now.Add(ends), now)
	}
	put := func(k string) { v := 0; c.put(c.hash(k), k, &v, 0, now.Add(time.Minute), now) }
	has := func(k string) bool { return c.get(c.hash(k), k) != nil }
	for _, k := range []string{"a", "c", "e", "f", "g", "h"} { // b stays cold
		if !has(k) {
			t.Fatalf("%s is gone before the set was full", k)
		}
	}
	put("new1")
	if has("d") || !has("new1") {
		t.Error("the expired entry did not give its place")
	}
	put("new2")
	if has("b") || !has("new2") {
		t.Error("the cold entry did not give its place")
	}
	if n, _ := c.size(); n != ways {
		t.Errorf("%d entries, want %d", n, ways)
	}
}

func TestCacheKeepsItsByteBound(t *testing.T) {
	c := newCache[int](1024, 64<<10)
	now := time.Unix(1000, 0)
	for i := range 500 {
		k := strings.Repeat("k", 1000+i)
		c.put(c.hash(k), k, &i, 0, now.Add(time.Minute), now)
		if _, bytes := c.size(); bytes > 64<<10 {
			t.Fatalf("%d bytes after %d entries, bound %d", bytes, i, 64<<10)
		}
	}
	if n, _ := c.size(); n < 20 {
		t.Errorf("only %d entries of about 1.3 kB in 64 KiB", n)
	}
	huge := strings.Repeat("h", 9<<10)
	v := 0
	c.put(c.hash(huge), huge, &v, 0, now.Add(time.Minute), now)
	if c.get(c.hash(huge), huge) != nil {
		t.Error("one entry took more than its share of the bound")
	}
}
