module number-masking

go 1.26

require github.com/plivo/plivo-go/v7 v7.60.2

require golang.org/x/text v0.11.0 // indirect
