import java.io.IOException;
import java.io.PrintStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;

/**
 * The platform page's own sample of a balance query, by JDK 17's HttpClient: the credentials in the query string, an
 * empty body under text/plain, no redirect followed.
 *
 * <p>{@code java BalanceSample.java BASE_URL}: prints the answer.
 */
public final class BalanceSample {
    public static void main(String[] args) throws IOException, InterruptedException {
        String query = "?appId=2RYN7CQHL1M00000&appKey=WVNA4A000000";
        HttpRequest request = HttpRequest.newBuilder(URI.create(args[0] + "/smsApi/verifyCode/getBalance" + query))
                .header("Content-Type", "text/plain; charset=utf-8")
                .POST(HttpRequest.BodyPublishers.ofString(""))
                .build();
        HttpResponse<String> response = HttpClient.newBuilder()
                .followRedirects(HttpClient.Redirect.NEVER)
                .build()
                .send(request, HttpResponse.BodyHandlers.ofString(StandardCharsets.UTF_8));
        new PrintStream(System.out, true, StandardCharsets.UTF_8).println(response.body());
    }
}
