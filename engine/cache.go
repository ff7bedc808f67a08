package engine

import (
	"container/list"
	"sync"
)

// Cache keeps the programs used last, by key; a key holds all that a program depends on, such as its shapes.
type Cache struct {
	mu    sync.Mutex
	limit int
	byKey map[string]*list.Element
	order list.List // front is the newest
}

type cached struct {
	key     string
	program Program
}

// NewCache returns a cache of at most limit programs.
func NewCache(limit int) *Cache {
	return &Cache{limit: limit, byKey: map[string]*list.Element{}}
}

// Get returns the program of the key and builds it where there is none.
func (c *Cache) Get(key string, build func() (Program, error)) (Program, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.byKey[key]; ok {
		c.order.MoveToFront(e)
		return e.Value.(cached).program, nil
	}
	p, err := build()
	if err != nil {
		return nil, err
	}
	c.byKey[key] = c.order.PushFront(cached{key, p})
	for c.order.Len() > c.limit {
		last := c.order.Back()
		delete(c.byKey, last.Value.(cached).key)
		c.order.Remove(last)
	}
	return p, nil
}
