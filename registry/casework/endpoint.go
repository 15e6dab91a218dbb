package casework

import "github.com/dspgate/dspgate/registry"

// endpointQuestion is the question of the self-certification whose answer is the
// address of a product's endpoint.
const endpointQuestion = "OSF-EIT.2"

// Endpoint is the address that a product's developer declared in its
// self-certification, "" when none.
func Endpoint(b *registry.Casebook, product string) string {
	c, err := registry.CaseOf[Certification](b, product)
	if err != nil {
		return ""
	}
	if a, ok := c.Body.Answers[endpointQuestion]; ok && len(a.Values) == 1 {
		return a.Values[0]
	}
	return ""
}
