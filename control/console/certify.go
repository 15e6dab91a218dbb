package console

const uploadBytesMax = 21 << 20

func certifyPages(mine routes) {}
