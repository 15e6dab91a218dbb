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
