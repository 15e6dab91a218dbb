package registry

import (
	"errors"
	"fmt"
)

// What callers tell apart. control/respond.go is the one place that turns them
// into status codes.
var (
	// ErrInvalid: the input is wrong; usually inside a FieldError. 422.
	ErrInvalid = errors.New("invalid")
	// ErrNotFound: no such record, or none that the actor may know of. 404.
	ErrNotFound = errors.New("not found")
	// ErrForbidden: the actor lacks the permission, or is the same person twice. 403.
	ErrForbidden = errors.New("forbidden")
	// ErrState: the command is not allowed in the present state. 409.
	ErrState = errors.New("not allowed in this state")
	// ErrConflict: the register moved on since the base revision, after retries. 409.
	ErrConflict = errors.New("conflict")
	// ErrPrecondition: If-Match names another revision than the record's. 412.
	ErrPrecondition = errors.New("precondition failed")
	// ErrFenced: another control plane is the writer now. 503.
	ErrFenced = errors.New("fenced: another control plane is the writer")
	// ErrNotDurable: committed, but not on as many replicas as asked for. 503 not-durable.
	ErrNotDurable = errors.New("not durable on the replicas asked for")
	// ErrUnavailable: the store cannot be reached or refuses writes; nothing was committed. 503.
	ErrUnavailable = errors.New("register store unavailable")
	// ErrUncertain: the store went silent during the commit; it may or may not have happened. 503.
	ErrUncertain = errors.New("commit outcome unknown")
	// ErrTampered: a record, change or head does not verify under the register key.
	ErrTampered = errors.New("does not verify under the register key")
	// ErrTrimmed: the log no longer reaches back to the revision asked for; load the snapshot.
	ErrTrimmed = errors.New("the log no longer reaches back that far")
	// ErrRewound: the store's head is behind a revision already held; never applied.
	ErrRewound = errors.New("the store is behind a revision already held")

	errKeyShort = errors.New("the register key is shorter than 32 bytes")
)

// FieldError says which field of the input is wrong and what to do about it.
type FieldError struct {
	Field string // JSON pointer, e.g. /subject/id
	Err   error  // wraps ErrInvalid
}

func (e *FieldError) Error() string { return e.Field + ": " + e.Err.Error() }

func (e *FieldError) Unwrap() error { return e.Err }

// Field makes a FieldError from a plain sentence.
func Field(pointer, format string, args ...any) error {
	return &FieldError{Field: pointer, Err: fmt.Errorf("%w: "+format, append([]any{ErrInvalid}, args...)...)}
}
