/* The smallest MPI job that proves something: every rank says who and where it
 * is, after a barrier and a sum that only come out right if all ranks talk to
 * each other. Prints `rank R of N on HOST`. With the argument `abort` the last
 * rank calls MPI_Abort with code 5 then, while the others wait for it. */
#include <mpi.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    int rank, size, sum = 0;
    char host[256] = "";

    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    gethostname(host, sizeof host - 1);

    MPI_Barrier(MPI_COMM_WORLD);
    MPI_Allreduce(&rank, &sum, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
    if (sum != size * (size - 1) / 2) {
        fprintf(stderr, "rank %d: the sum over all ranks is %d\n", rank, sum);
        MPI_Abort(MPI_COMM_WORLD, 1);
    }
    printf("rank %d of %d on %s\n", rank, size, host);
    if (argc > 1 && strcmp(argv[1], "abort") == 0) {
        fflush(stdout);
        if (rank == size - 1)
            MPI_Abort(MPI_COMM_WORLD, 5);
        MPI_Barrier(MPI_COMM_WORLD);
    }
    MPI_Finalize();
    return 0;
}
