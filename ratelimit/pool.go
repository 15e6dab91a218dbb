package ratelimit

import "context"

// Pool lends shares of limits to sidecars. It keeps, for each limit in use, what
// each sidecar holds and what is left; it has no clock. Every Sync is one atomic
// step. Implemented by redisshare, and in memory by ratelimittest.
type Pool interface {
	Sync(ctx context.Context, req *Request) (*Reply, error)
}

// Waker is a Pool that can tell at once what would else be found out at the next
// request: a hint, which may get lost.
type Waker interface {
	// Wake is called in a goroutine of its own, and calls ring until ctx ends.
	Wake(ctx context.Context, ring func(Hint))
}

// Hint is why a pool wakes sidecars.
type Hint struct {
	// Tenure has something to gain from asking again; 0 calls everybody.
	Tenure uint64
	// Of everybody a limit is wanted back, as far as it is not needed; ID is ""
	// when it is something else.
	ID, Period string
	Demand     int64 // of the fleet
}

// Request says in full what a sidecar holds of the limits it mentions, and what
// it wants. What it says it holds is so from before it is sent.
type Request struct {
	// Seat is the sidecar's name, Tenure its number since it joined: 0 to join.
	Seat   string
	Tenure uint64
	// Beat grows with every Request of a tenure. An older one that arrives late is
	// not obeyed. A Beat that stands still is how others see that it is gone.
	Beat uint64
	// Parts is among how many the sidecar shares out its standing parts by now.
	Parts int
	// Whole: nothing is missing from any standing part here.
	Whole bool
	// Dead: whoever held the seat before is known to have ended, so that what it
	// held is free at once. It counts when this Request joins, with Tenure 0 or one
	// that the pool has lost. Born tells before whom: when this
	// process began, on the clock its predecessors on the same machine had. A
	// request to join that comes late ends nobody who came after its sender.
	Dead bool
	Born int64
	// Leave gives the seat up. What is not among Items is standing, and unspent.
	Leave bool
	// Until is a moment of the wall clock, in Unix seconds: from the standing parts
	// of calendar periods that begin later nothing is spent before the pool answers
	// a Request with a later Until.
	Until int64
	// Notice is the last notice seen.
	Notice uint64
	// Fleet asks for the seats, Claims says what became of some of them.
	Fleet  bool
	Claims []Claim
	Items  []Item
}

// Claim says that a tenure has not been heard of, Beat being its last, for
// longer than its lease of shares; Gone, for longer than that of its standing
// parts. Of one that is Gone by now, Over tells for how many seconds at least.
type Claim struct {
	Tenure, Beat uint64
	Gone         bool
	Over         int64
}

// Item is one limit in a Request.
type Item struct {
	ID      string // of the Limit
	Period  string // its period's name, "" without a calendar
	Begin   int64  // and when that begins, in Unix seconds
	Kind    Kind
	Version uint64
	Total   Share

	// Held is the share held from now on. What was held before beyond that is given
	// back, with Returned tokens in it. Of a calendar quota the capacity is what is
	// left of the tokens; what was given back is known from Spent, which counts all
	// that was ever spent here in the period: a Request whose answer got lost loses
	// none of it. A negative Spent: the sidecar does not know what it spent here
	// before, counts from 0 now, and gives nothing back, nor is its standing part
	// there when this Item is the first that the pool hears of the limit.
	Held     Share
	Returned int64
	Spent    int64
	// Standing: the sidecar never spoke of this limit in the record's epoch, and
	// Held is what is left of its standing part.
	Standing bool
	// Open, of a calendar quota: how much of the share, with what is lent now, the
	// sidecar may spend before it is heard of again. Beyond what an answered Request
	// opened nothing is spent, so that the rest of a dead sidecar's chunk is unspent.
	Open   int64
	Level  int64 // tokens in Held
	Demand int64 // requests it was asked for, in millionths a second
	Ask    int64 // tokens wanted, with the capacity for them
	AskCap int64 // empty capacity wanted besides
	Into   int64 // of Held, what is kept empty for the tokens asked for
	// Nag: others are to be asked for what they do not need.
	Nag bool
	// Idle: nobody uses this limit here; the bucket is full.
	Idle bool
	// Subjects were counted since the last Request (DistinctDay), a token each. The
	// first Again of them were sent before, and not answered.
	Subjects [][16]byte
	Again    int
}

// Reply answers a Request.
type Reply struct {
	// Tenure differs from the Request's when that is new or was taken for gone:
	// then nothing is held but what follows, and the Items were not looked at.
	Tenure uint64
	// Parts and Index say which standing part the sidecar holds: none while Parts
	// is 0. Spent: whoever held it before may have spent from it, of calendar quotas
	// from that of periods that began by SpentUntil, in Unix seconds; told, as Hot is,
	// while the Request's Parts is 0.
	Parts, Index int
	Spent        bool
	SpentUntil   int64
	// Hot lists the limits, as ID and period, of which a new tenure holds nothing,
	// not even a standing part.
	Hot []HotLimit
	// Stale: the Request came late and was not obeyed.
	Stale bool

	Notices []Notice
	Notice  uint64 // the last one there is, or is in Notices
	Seats   []Seat
	Items   []ItemReply // one for each Item, in order
}

// HotLimit names a limit that has a record in the pool.
type HotLimit struct{ ID, Period string }

// Seat is one sidecar of the fleet, or the place of one that is Gone, which
// nobody has taken since: for Over seconds at least.
type Seat struct {
	Name         string
	Tenure, Beat uint64
	Absent, Gone bool
	Over         int64
}

// ItemReply is what became of an Item.
type ItemReply struct {
	Epoch   uint64 // of the pool's record
	Version uint64 // of the figures it goes by, which may be newer than the sidecar's
	Total   Share
	Held    Share  // what the sidecar holds now
	Granted int64  // tokens added by this Reply
	Target  int64  // the rate that is the sidecar's by its part of the demand
	Free    int64  // tokens left in the pool
	Room    int64  // empty capacity left in the pool
	Rest    int64  // tokens of the whole fleet, the sidecar's own aside
	Demand  int64  // of the whole fleet
	Short   bool   // somebody holds less than it should
	Known   []bool // of Subjects: counted before; the token is not spent after all
}

// Notice tells every sidecar about one limit.
type Notice struct {
	Seq    uint64
	Epoch  uint64
	ID     string
	Period string
	// Cold: the record is gone, and every standing part is whole again. Else
	// somebody is short: give back what is not needed.
	Cold    bool
	Kind    Kind
	Version uint64
	Total   Share
	Demand  int64
}
