// The times of MPI_Allreduce alone, of the messages of `tokenformer bench sums`: `allreduce STEPS` prints bytes and ms.
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>

static int ascending(const void* a, const void* b) {
  double x = *(const double*)a, y = *(const double*)b;
  return (x > y) - (x < y);
}

int main(int argc, char** argv) {
  int steps = argc > 1 ? atoi(argv[1]) : 7, rank;
  const int numbers[] = {1 << 10, 1 << 14, 1 << 18, 1 << 22, 1 << 24};
  MPI_Init(&argc, &argv);
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  double* times = malloc(steps * sizeof(double));
  for (int i = 0; i < 5; i++) {
    float* data = malloc(numbers[i] * sizeof(float));
    for (int step = 0; step <= steps; step++) {
      for (int j = 0; j < numbers[i]; j++) data[j] = 1.0f;
      MPI_Barrier(MPI_COMM_WORLD);
      double started = MPI_Wtime();
      MPI_Allreduce(MPI_IN_PLACE, data, numbers[i], MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
      if (step > 0) times[step - 1] = 1e3 * (MPI_Wtime() - started);
    }
    qsort(times, steps, sizeof(double), ascending);
    if (rank == 0) printf("%zu %.4f\n", numbers[i] * sizeof(float), times[steps / 2]);
    free(data);
  }
  MPI_Finalize();
}
