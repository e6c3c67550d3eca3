package decision

import (
	"testing"

	"github.com/imagegc/ecs-image-gc/internal/ecs"
)

// Without a meaning, a user is told that the code is not documented.
func TestMeanings_haveEachCodeOfECSOnce(t *testing.T) {
	count := map[ecs.Code]int{}
	for _, meaning := range Meanings {
		count[meaning.Code]++
	}
	for _, row := range ecs.Codes {
		if count[row] != 1 {
			t.Errorf("%s has %d meanings", row.Pattern, count[row])
		}
	}
	if none := count[ecs.Code{}]; none > 0 {
		t.Errorf("%d meanings are of codes that package ecs does not have", none)
	}
}
