package anomaly

// sixths is into how many parts of ten seconds a minute is divided.
const sixths = 6

// slide makes any sixty seconds a minute: who begins in the middle of one would
// otherwise be counted from nothing when it ends. It remembers what was counted
// by the end of each sixth of the open minute and of the one before.
type slide struct {
	minute       int64 // the open one
	sixth        int   // of it
	open, before [sixths][nVigils]float64
	most         [nVigils]float64 // of any sixty seconds that ended in the open minute
}

// slides tells whether a vigil counts sixty seconds. Subscriptions from elsewhere
// are not added up: the same ones are there in both minutes.
func slides(i int) bool { return vigils[i].horizon == minuteLong && vigils[i].stat != statElsewhere }

// to moves on to a sixth of a minute, in which values have been counted since the
// minute began, and makes of them what was counted in the last sixty seconds.
func (x *slide) to(minute int64, sixth int, values *[nVigils]float64) {
	if minute != x.minute {
		x.fill(sixths - 1)
		if minute == x.minute+1 {
			x.before = x.open
		} else {
			x.before = [sixths][nVigils]float64{}
		}
		x.minute, x.sixth = minute, 0
		x.open, x.most = [sixths][nVigils]float64{}, [nVigils]float64{}
	}
	x.fill(sixth)
	for i := range values {
		if !slides(i) {
			continue
		}
		x.open[x.sixth][i] = values[i]
		values[i] += x.before[sixths-1][i] - x.before[x.sixth][i]
		x.most[i] = max(x.most[i], values[i])
	}
}

// fill brings what was counted up to a sixth: nothing since.
func (x *slide) fill(sixth int) {
	for x.sixth < sixth {
		x.open[x.sixth+1] = x.open[x.sixth]
		x.sixth++
	}
}
