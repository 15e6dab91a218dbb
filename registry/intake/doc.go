// Package intake brings a product register that exists already into this one,
// and writes it out again.
//
// One line is one product with its owner, in CSV or JSON. Each line is entered
// whole or not at all, and reported on by its number; a line that is wrong keeps
// no other out. What is there already as the line says is unchanged, so that an
// import that broke off is simply done again, from any line. Dry, it enters
// nothing and reports the same.
//
// A product that the agency had whitelisted is grandfathered: it may go on for
// the interim period and owes everything that binds it. An import never touches
// the certification of a product that is here already.
package intake
