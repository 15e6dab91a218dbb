package registrytest_test

import (
	"testing"

	"github.com/dspgate/dspgate/registry/registrytest"
)

func TestMemoryPassesTheSuite(t *testing.T) {
	registrytest.RunSuite(t, func(*testing.T) registrytest.Store { return registrytest.NewMemory() })
}

func TestALinkWithoutFaultsPassesTheSuite(t *testing.T) {
	registrytest.RunSuite(t, func(*testing.T) registrytest.Store { return registrytest.NewLink(registrytest.NewMemory()) })
}
