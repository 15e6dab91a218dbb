package console

func assessPages(mine routes) {}
