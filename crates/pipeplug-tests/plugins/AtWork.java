import java.io.DataInputStream;
import java.io.IOException;
import java.io.PrintStream;
import java.nio.channels.FileChannel;
import java.nio.channels.Pipe;
import java.nio.channels.Selector;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.StandardOpenOption;
import java.security.SecureRandom;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Callable;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.stream.IntStream;

/**
 * A plugin on standard input and output that does what programs in Java do: `work` answers with the names of the parts that
 * went well, or says which one did not.
 */
public final class AtWork {
    private static final long ONE_WAY = 1, REQUEST = 2, RESPONSE = 3;

    interface Part {
        void run() throws Exception;
    }

    private static final Map<String, Part> PARTS = new LinkedHashMap<>();

    static {
        PARTS.put("threads", AtWork::threads);
        PARTS.put("programs", AtWork::programs);
        PARTS.put("files", AtWork::files);
        PARTS.put("waiting", AtWork::waiting);
        PARTS.put("computing", AtWork::computing);
    }

    static void threads() throws Exception {
        var pool = Executors.newFixedThreadPool(8);
        List<Future<Integer>> all = new ArrayList<>();
        for (int n = 0; n < 32; n++) {
            int number = n;
            all.add(pool.submit((Callable<Integer>) () -> number));
        }
        for (var future : all) {
            future.get();
        }
        pool.shutdown();
        var thread = new Thread(() -> {});
        thread.setPriority(Thread.MAX_PRIORITY);
        thread.start();
        thread.join();
        System.gc();
    }

    static void programs() throws Exception {
        var process = new ProcessBuilder("/bin/echo", "hi").start();
        check(new String(process.getInputStream().readAllBytes()).equals("hi\n") && process.waitFor() == 0);
        var sleeper = new ProcessBuilder("/bin/sleep", "100").start();
        sleeper.destroy();
        check(sleeper.waitFor() != 0);
    }

    static void files() throws Exception {
        var dir = Files.createTempDirectory("at-work-");
        var file = dir.resolve("file");
        Files.write(file, new byte[8192]);
        Files.move(file, dir.resolve("file2"), StandardCopyOption.ATOMIC_MOVE);
        try (var channel = FileChannel.open(dir.resolve("file2"), StandardOpenOption.READ, StandardOpenOption.WRITE)) {
            check(channel.map(FileChannel.MapMode.READ_WRITE, 0, 8192).get(0) == 0);
            channel.lock().release();
            channel.force(true);
        }
        Files.delete(dir.resolve("file2"));
        Files.delete(dir);
    }

    static void waiting() throws Exception {
        Thread.sleep(1);
        try (var selector = Selector.open()) {
            var pipe = Pipe.open();
            pipe.source().configureBlocking(false);
            pipe.source().register(selector, java.nio.channels.SelectionKey.OP_READ);
            pipe.sink().write(java.nio.ByteBuffer.wrap(new byte[1]));
            check(selector.select(10_000) == 1);
        }
    }

    static void computing() throws Exception {
        new SecureRandom().nextBytes(new byte[16]);
        check(IntStream.range(0, 1_000_000).parallel().sum() != 0);
        check(javax.net.ssl.SSLContext.getDefault() != null);
        check(java.time.ZonedDateTime.now().getYear() > 2000);
    }

    static void check(boolean holds) {
        if (!holds) {
            throw new AssertionError();
        }
    }

    static String[] answer(String cmd) {
        switch (cmd) {
            case "GetMetadata":
                return new String[] {cmd, "{\"Cmd\":\"at-work\"}"};
            case "cmd.ping":
                return new String[] {cmd, ""};
            case "work":
                for (var part : PARTS.entrySet()) {
                    try {
                        part.getValue().run();
                    } catch (Throwable error) {
                        return new String[] {"cmd.error", part.getKey() + ": " + error};
                    }
                }
                return new String[] {cmd, String.join(" ", PARTS.keySet())};
            default:
                return new String[] {"cmd.error", "there is only work"};
        }
    }

    static long number(DataInputStream input) throws IOException {
        long number = 0;
        for (int digit; (digit = input.readByte()) != 0; ) {
            number = number * 10 + digit - '0';
        }
        return number;
    }

    static String bytes(DataInputStream input) throws IOException {
        var buffer = new byte[(int) number(input)];
        input.readFully(buffer);
        return new String(buffer, StandardCharsets.UTF_8);
    }

    public static void main(String[] args) throws IOException {
        var input = new DataInputStream(System.in);
        var output = new PrintStream(System.out, false, StandardCharsets.UTF_8);
        while (true) {
            long id = number(input), direction = number(input);
            var cmd = bytes(input);
            input.readByte();
            bytes(input);
            if (direction == ONE_WAY && cmd.equals("cmd.stop")) {
                System.exit(0);
            }
            if (direction == REQUEST) {
                var reply = answer(cmd);
                int[] lengths = new int[2];
                for (int n = 0; n < 2; n++) {
                    lengths[n] = reply[n].getBytes(StandardCharsets.UTF_8).length;
                }
                output.print(id + "\0" + RESPONSE + "\0" + lengths[0] + "\0" + reply[0] + "\0" + lengths[1] + "\0" + reply[1]);
                output.flush();
            }
        }
    }
}
