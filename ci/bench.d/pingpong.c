/* Latency and bandwidth between two ranks, each as the best of several rounds: the machine has other things to do too.
 * Prints `latency_us L bandwidth_mb_s B`. */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>

static double round_trip(int rank, char *buffer, int size, int count)
{
    double start;
    MPI_Barrier(MPI_COMM_WORLD);
    start = MPI_Wtime();
    for (int i = 0; i < count; i++) {
        if (rank == 0) {
            MPI_Send(buffer, size, MPI_BYTE, 1, 0, MPI_COMM_WORLD);
            MPI_Recv(buffer, size, MPI_BYTE, 1, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
        } else if (rank == 1) {
            MPI_Recv(buffer, size, MPI_BYTE, 0, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
            MPI_Send(buffer, size, MPI_BYTE, 0, 0, MPI_COMM_WORLD);
        }
    }
    return (MPI_Wtime() - start) / count;
}

int main(int argc, char **argv)
{
    enum { LARGE = 4 << 20, ROUNDS = 15 };
    char *buffer = calloc(1, LARGE);
    double small = 1e9, large = 1e9, took;
    int rank;

    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    for (int i = 0; i < ROUNDS; i++) {
        took = round_trip(rank, buffer, 8, 500);
        if (took < small) small = took;
        took = round_trip(rank, buffer, LARGE, 5);
        if (took < large) large = took;
    }
    if (rank == 0)
        printf("latency_us %.3f bandwidth_mb_s %.0f\n", small / 2 * 1e6, 2.0 * LARGE / large / 1e6);
    MPI_Finalize();
    return 0;
}
