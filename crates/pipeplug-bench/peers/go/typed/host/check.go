// Calls both methods, to see that the rest works.
package main

import (
	"fmt"
	"log"
	"os"
)

func main() {
	client, words, err := start(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	defer client.Kill()
	sum, err := words.Add(2, 3)
	if err != nil {
		log.Fatal(err)
	}
	found, err := words.Suggest("teh", 2)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(sum, found)
}
