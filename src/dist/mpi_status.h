/** @file mpi_status.h
 *  Return codes of MPI turned into fn_status.
 */
#ifndef FN_DIST_MPI_STATUS_H
#define FN_DIST_MPI_STATUS_H

#include <fieldnet/fieldnet.h>
#include <mpi.h>

/** FN_OK for MPI_SUCCESS; else FN_ERR_INTERNAL with the library's text for `code` and what was
 * being done. */
fn_status fn_mpi_status(int code, const char *doing);

#define FN_TRY_MPI(call, doing) FN_TRY(fn_mpi_status((call), (doing)))

#endif
