package ratelimit

import "time"

// bucket is a token bucket that tokens and capacity can be put into and taken
// out of, which golang.org/x/time/rate has no way to do; with neither, it
// answers as that does (TestBucketAgreesWithTimeRate). Its time is the
// caller's, and only goes forward.
type bucket struct {
	Share
	level float64 // tokens, in millionths; 0 to Cap
	at    time.Duration
}

// advance lets time pass. A clock that went back stands still instead: what
// was refilled once is not refilled again.
func (b *bucket) advance(now time.Duration) {
	if now <= b.at {
		return
	}
	b.level = min(b.level+float64(b.Rate)*(now-b.at).Seconds(), float64(b.Cap))
	b.at = now
}

// take takes n, or nothing and false.
func (b *bucket) take(n int64) bool {
	if b.level < float64(n) {
		return false
	}
	b.level -= float64(n)
	return true
}

// put gives back what was taken.
func (b *bucket) put(n int64) { b.level = min(b.level+float64(n), float64(b.Cap)) }

// shrink lowers the share to at most s; tokens beyond its capacity go.
func (b *bucket) shrink(s Share) {
	b.Share = b.Share.min(s)
	b.level = min(b.level, float64(b.Cap))
}

// wait is how long until n tokens are there, and false when they never will be.
func (b *bucket) wait(n int64) (time.Duration, bool) {
	missing := float64(n) - b.level
	if missing <= 0 {
		return 0, true
	}
	if b.Rate <= 0 || n > b.Cap {
		return 0, false
	}
	return time.Duration(missing / float64(b.Rate) * 1e9), true
}
