package ratelimit

// Holding tells what the Limiter holds of a limit, for tests.
func Holding(l *Limiter, id string) (s Share, level float64, standing bool) {
	sh := l.shard(id)
	sh.mu.RLock()
	a := sh.accounts[id]
	sh.mu.RUnlock()
	if a == nil {
		return Share{}, 0, true
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.advance(l.o.Elapsed())
	return a.Share, a.available(), a.standing
}

// Opened is what of a calendar quota the Limiter may spend without a word: what
// is lost for the period should it die.
func Opened(l *Limiter, id string) int64 {
	sh := l.shard(id)
	sh.mu.RLock()
	a := sh.accounts[id]
	sh.mu.RUnlock()
	if a == nil {
		return 0
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return int64(max(a.ready(), 0))
}
