// Prints a context for countersign.   usage: go run . HS256|EdDSA KEY_FILE KID
package main

import (
	"bytes"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/golang-jwt/jwt/v4"
)

func main() {
	if len(os.Args) != 4 {
		log.Fatal("usage: mint HS256|EdDSA KEY_FILE KID")
	}
	algorithm, kid := os.Args[1], os.Args[3]
	file, err := os.ReadFile(os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	// HS256: the secret; EdDSA: a private key in PEM (PKCS#8)
	var key interface{} = bytes.TrimSpace(file)
	if algorithm == "EdDSA" {
		if key, err = jwt.ParseEdPrivateKeyFromPEM(file); err != nil {
			log.Fatal(err)
		}
	}
	token := jwt.NewWithClaims(jwt.GetSigningMethod(algorithm), jwt.MapClaims{
		"instance_id": "PO-77",
		"task_id":     "n2",
		"round":       "1",                // a new one whenever the task is opened again
		"operators":   []string{"zhang3"}, // user_id of those who may decide
		"actions":     []string{"APPROVE", "REJECT"},
		"endpoint":    "purchase",
		"exp":         time.Now().Add(72 * time.Hour).Unix(),
		"data":        map[string]string{"amount": "12000.00"}, // for your worker
	})
	token.Header["kid"] = kid
	signed, err := token.SignedString(key)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(signed)
}
