/* A client of libssh: libssh PORT USER KEY COMMAND. What the server says goes to the same streams, and
 * the command's exit status is this program's; 255 for whatever else. */
#include <libssh/libssh.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static int failed(ssh_session session, const char *what)
{
    fprintf(stderr, "libssh: %s: %s\n", what, ssh_get_error(session));
    return 255;
}

/* Passes on what there is on one stream; whether there was anything. */
static int pass(ssh_channel channel, int is_stderr)
{
    char text[4096];
    int count = ssh_channel_read_timeout(channel, text, sizeof text, is_stderr, 50);
    if (count > 0 && write(is_stderr ? 2 : 1, text, count) != count)
        exit(255);
    return count > 0;
}

int main(int argc, char **argv)
{
    ssh_session session = ssh_new();
    ssh_key key = NULL;
    ssh_channel channel;
    int port, none = 0, status;

    if (argc != 5 || session == NULL)
        return 64;
    port = atoi(argv[1]);
    ssh_options_set(session, SSH_OPTIONS_HOST, "127.0.0.1");
    ssh_options_set(session, SSH_OPTIONS_PORT, &port);
    ssh_options_set(session, SSH_OPTIONS_USER, argv[2]);
    ssh_options_set(session, SSH_OPTIONS_PROCESS_CONFIG, &none);
    if (ssh_connect(session) != SSH_OK)
        return failed(session, "connect");
    if (ssh_pki_import_privkey_file(argv[3], NULL, NULL, NULL, &key) != SSH_OK)
        return failed(session, "key");
    if (ssh_userauth_publickey(session, NULL, key) != SSH_AUTH_SUCCESS)
        return failed(session, "authentication");
    channel = ssh_channel_new(session);
    if (channel == NULL || ssh_channel_open_session(channel) != SSH_OK)
        return failed(session, "channel");
    if (ssh_channel_request_exec(channel, argv[4]) != SSH_OK)
        return failed(session, "exec");
    while (!ssh_channel_is_eof(channel) && ssh_channel_is_open(channel)) {
        pass(channel, 1);
        pass(channel, 0);
    }
    while (pass(channel, 1) | pass(channel, 0))
        ;
    status = ssh_channel_get_exit_status(channel);
    ssh_channel_free(channel);
    ssh_disconnect(session);
    ssh_free(session);
    return status < 0 ? 255 : status;
}
