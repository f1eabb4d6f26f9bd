module github.com/pipeplug/pipeplug/sdk/go

go 1.19
