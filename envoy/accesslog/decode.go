package accesslog

import (
	"errors"
	"fmt"
	"math"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/dspgate/dspgate/authz"
)

// errMalformed: the bytes are no access log message.
var errMalformed = errors.New("malformed access log message")

// The field numbers of envoy.service.accesslog.v3 and envoy.data.accesslog.v3
// that are looked at. Everything else, paths and addresses first of all, is
// skipped unread.
const (
	msgHTTPLogs    = 2 // StreamAccessLogsMessage
	httpLogEntries = 1 // HTTPAccessLogEntries

	entryCommon, entryRequest, entryResponse = 1, 3, 4

	commonStart, commonFlags, commonMetadata, commonRoute      = 5, 16, 17, 19
	commonDuration, commonIntermediate, commonUpstreamSent     = 23, 27, 31
	requestBodyBytes, requestUpstreamHeaderBytes               = 12, 14
	responseCode, responseBodyBytes, responseDetails           = 1, 3, 6
	metadataFilter, structFields, mapKey, mapValue, valueIsStr = 1, 1, 1, 2, 3
)

// decoder scans messages. protobuf-go takes 20 µs and some hundred allocations
// for an entry, more than the whole decision it reports.
type decoder struct {
	// services interns route names: there are few, and each entry has one.
	services map[string]string
}

// servicesMax bounds the names remembered; a route name beyond is copied.
const servicesMax = 4096

// eachField visits the fields of a message: v is the content of a
// length-delimited field, n the value of a varint.
func eachField(b []byte, f func(num protowire.Number, typ protowire.Type, v []byte, n uint64) error) error {
	for len(b) > 0 {
		num, typ, size := protowire.ConsumeTag(b)
		if size < 0 {
			return errMalformed
		}
		b = b[size:]
		var v []byte
		var n uint64
		switch typ {
		case protowire.BytesType:
			v, size = protowire.ConsumeBytes(b)
		case protowire.VarintType:
			n, size = protowire.ConsumeVarint(b)
		default:
			size = protowire.ConsumeFieldValue(num, typ, b)
		}
		if size < 0 {
			return errMalformed
		}
		b = b[size:]
		if err := f(num, typ, v, n); err != nil {
			return err
		}
	}
	return nil
}

// message visits the HTTP entries of a StreamAccessLogsMessage. The entry is
// reused; f must not keep it.
func (d *decoder) message(b []byte, f func(*Entry)) error {
	var e Entry
	return eachField(b, func(num protowire.Number, typ protowire.Type, logs []byte, _ uint64) error {
		if num != msgHTTPLogs || typ != protowire.BytesType {
			return nil
		}
		return eachField(logs, func(num protowire.Number, typ protowire.Type, entry []byte, _ uint64) error {
			if num != httpLogEntries || typ != protowire.BytesType {
				return nil
			}
			if err := d.entry(entry, &e); err != nil {
				return err
			}
			f(&e)
			return nil
		})
	})
}

// entry decodes an HTTPAccessLogEntry.
func (d *decoder) entry(b []byte, e *Entry) error {
	*e = Entry{Reason: authz.AuthorizerUnavailable}
	var p pending
	err := eachField(b, func(num protowire.Number, typ protowire.Type, v []byte, _ uint64) error {
		if typ != protowire.BytesType {
			return nil
		}
		switch num {
		case entryCommon:
			return d.common(v, e, &p)
		case entryRequest:
			return eachField(v, func(num protowire.Number, typ protowire.Type, _ []byte, n uint64) error {
				switch {
				case typ != protowire.VarintType:
				case num == requestBodyBytes:
					e.RequestBytes = n
				case num == requestUpstreamHeaderBytes:
					p.headerBytes = n
				}
				return nil
			})
		case entryResponse:
			return p.response(v, e)
		}
		return nil
	})
	if err != nil {
		return err
	}
	p.finish(e)
	return nil
}

// pending is what the fields of an entry say before it is known which of them
// comes last.
type pending struct {
	start, duration struct{ seconds, nanos int64 }
	status          uint32
	headerBytes     uint64
	id, reason      []byte
}

func (p *pending) response(b []byte, e *Entry) error {
	return eachField(b, func(num protowire.Number, typ protowire.Type, v []byte, n uint64) error {
		switch {
		case num == responseCode && typ == protowire.BytesType:
			return eachField(v, func(num protowire.Number, typ protowire.Type, _ []byte, n uint64) error {
				if num == 1 && typ == protowire.VarintType {
					p.status = uint32(n)
				}
				return nil
			})
		case num == responseBodyBytes && typ == protowire.VarintType:
			e.ResponseBytes = n
		case num == responseDetails && typ == protowire.BytesType:
			e.Direct = string(v) == "direct_response"
		}
		return nil
	})
}

func (d *decoder) common(b []byte, e *Entry, p *pending) error {
	return eachField(b, func(num protowire.Number, typ protowire.Type, v []byte, n uint64) error {
		switch typ {
		case protowire.VarintType:
			switch num {
			case commonIntermediate:
				e.Alive = protowire.DecodeBool(n)
			case commonUpstreamSent:
				e.UpstreamBytes = n
			}
		case protowire.BytesType:
			switch num {
			case commonStart:
				return secondsNanos(v, &p.start.seconds, &p.start.nanos)
			case commonDuration:
				return secondsNanos(v, &p.duration.seconds, &p.duration.nanos)
			case commonRoute:
				e.Service = d.intern(v)
			case commonFlags:
				return flags(v, &e.Flags)
			case commonMetadata:
				return p.metadata(v)
			}
		}
		return nil
	})
}

// finish turns what was found into an Entry.
func (p *pending) finish(e *Entry) {
	e.Start = time.Unix(clamp(p.start.seconds, -1<<40, 1<<40), clamp(p.start.nanos, 0, 999_999_999)).UTC()
	e.Duration = time.Duration(clamp(p.duration.seconds, 0, math.MaxInt64/int64(time.Second)-1))*time.Second +
		time.Duration(clamp(p.duration.nanos, 0, 999_999_999))
	if p.status < 1000 {
		e.Status = int(p.status)
	}
	e.Reached = e.UpstreamBytes > 0 || p.headerBytes > 0
	if id, err := authz.ParseDecisionID(string(p.id)); err == nil {
		e.Decision = id
		if r, ok := authz.ParseReason(string(p.reason)); ok {
			e.Reason = r
		}
	}
}

func clamp(v, low, high int64) int64 { return max(low, min(v, high)) }

func secondsNanos(b []byte, seconds, nanos *int64) error {
	return eachField(b, func(num protowire.Number, typ protowire.Type, _ []byte, n uint64) error {
		switch {
		case typ != protowire.VarintType:
		case num == 1:
			*seconds = int64(n)
		case num == 2:
			*nanos = int64(int32(n))
		}
		return nil
	})
}

// flags reads ResponseFlags: a bool per field, save the one that has a message
// saying why the call is unauthorized.
func flags(b []byte, f *Flags) error {
	return eachField(b, func(num protowire.Number, typ protowire.Type, _ []byte, n uint64) error {
		if num > flagMax {
			return nil
		}
		bit := Flags(1) << num
		switch {
		case bit == Unauthorized && typ == protowire.BytesType:
			*f |= bit
		case bit != Unauthorized && typ == protowire.VarintType:
			*f &^= bit
			if protowire.DecodeBool(n) {
				*f |= bit
			}
		}
		return nil
	})
}

// extAuthz is the filter under whose name the authorizer's metadata stands.
const extAuthz = "envoy.filters.http.ext_authz"

// metadata finds what the authorizer said: a map from filter to Struct.
func (p *pending) metadata(b []byte) error {
	return mapEntries(b, metadataFilter, func(filter string, structs [][]byte) error {
		if filter != extAuthz {
			return nil
		}
		p.id, p.reason = nil, nil // a later entry of a map replaces an earlier one
		for _, s := range structs {
			err := mapEntries(s, structFields, func(key string, values [][]byte) error {
				var into *[]byte
				switch key {
				case "decision_id":
					into = &p.id
				case "reason":
					into = &p.reason
				default:
					return nil
				}
				*into = nil
				for _, v := range values {
					if err := stringValue(v, into); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// stringValue reads a google.protobuf.Value; any kind but a string is none.
func stringValue(b []byte, into *[]byte) error {
	return eachField(b, func(num protowire.Number, typ protowire.Type, v []byte, _ uint64) error {
		if num == valueIsStr && typ == protowire.BytesType {
			*into = v
		} else if num >= 1 && num <= 6 {
			*into = nil
		}
		return nil
	})
}

// mapEntries visits the entries of a map field. The value of an entry may come
// in several pieces, which protobuf merges.
func mapEntries(b []byte, field protowire.Number, f func(key string, values [][]byte) error) error {
	return eachField(b, func(num protowire.Number, typ protowire.Type, entry []byte, _ uint64) error {
		if num != field || typ != protowire.BytesType {
			return nil
		}
		var key []byte
		var buf [2][]byte
		values := buf[:0]
		err := eachField(entry, func(num protowire.Number, typ protowire.Type, v []byte, _ uint64) error {
			switch {
			case typ != protowire.BytesType:
			case num == mapKey:
				key = v
			case num == mapValue:
				values = append(values, v)
			}
			return nil
		})
		if err != nil {
			return err
		}
		return f(string(key), values)
	})
}

func (d *decoder) intern(b []byte) string {
	if s, ok := d.services[string(b)]; ok {
		return s
	}
	s := string(b[:min(len(b), 128)])
	if len(d.services) < servicesMax && len(b) <= 128 {
		d.services[s] = s
	}
	return s
}

func newDecoder() *decoder { return &decoder{services: map[string]string{}} }

// wrapDecode gives an error its place.
func wrapDecode(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("access log: %w", err)
}
