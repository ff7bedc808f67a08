// Command tunesmith adapts a language model to a task and proves that it did.
package main

import (
	"os"

	"tunesmith/internal/cli"
)

func main() { os.Exit(cli.Run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }
